"""Inner products of encrypted data after Abdalla et al. 2015 (PoLe section 3.4), on secp256k1 with 128-bit security."""

from importlib.util import find_spec

from learnchain.rejection import Unavailable

if find_spec("numba") is None:
    raise Unavailable("functional encryption needs numba: install learnchain[encryption]")

from learnchain.encryption.functional.ciphertexts import (
    CipherBatch,
    CipherHeader,
    batch_leaf,
    build_header,
    ciphertext_root,
    decode_batch,
    decode_header,
    decode_master,
    encode_batch,
    encrypt,
    encrypt_batch,
)
from learnchain.encryption.functional.decryption import Decryptor, decrypt
from learnchain.encryption.functional.keys import (
    FunctionalKey,
    MasterPublic,
    MasterSecret,
    decode_key,
    derive_key,
    encode_key,
    encode_master,
    exact_rank,
    generate_master_keys,
    key_bytes,
    leak_budget,
    verify_key,
)

__all__ = [
    "CipherBatch",
    "CipherHeader",
    "Decryptor",
    "FunctionalKey",
    "MasterPublic",
    "MasterSecret",
    "batch_leaf",
    "build_header",
    "ciphertext_root",
    "decode_batch",
    "decode_header",
    "decode_key",
    "decode_master",
    "decrypt",
    "derive_key",
    "encode_batch",
    "encode_key",
    "encode_master",
    "encrypt",
    "encrypt_batch",
    "exact_rank",
    "generate_master_keys",
    "key_bytes",
    "leak_budget",
    "verify_key",
]
