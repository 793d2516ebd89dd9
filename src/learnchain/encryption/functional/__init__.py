"""Inner products of encrypted data after Abdalla et al. 2015 (PoLe section 3.4), on secp256k1 with 128-bit security."""

from importlib.util import find_spec

from learnchain.primitives.rejection import Unavailable

if find_spec("numba") is None:
    raise Unavailable("functional encryption needs numba: install learnchain[encryption]")

from learnchain.functional_encryption.ciphertexts import (
    CipherBatch,
    CipherHeader,
    batch_leaf,
    ciphertext_root,
    decode_batch,
    decode_header,
    decode_master,
    encode_batch,
    encrypt,
    encrypt_batch,
    header_for,
)
from learnchain.functional_encryption.decryption import Decryptor, decrypt
from learnchain.functional_encryption.keys import (
    FunctionalKey,
    MasterPublic,
    MasterSecret,
    decode_key,
    derive_key,
    encode_key,
    encode_master,
    key_bytes,
    setup,
    verify_key,
)
from learnchain.functional_encryption.leak_budget import exact_rank, leak_budget

__all__ = [
    "CipherBatch",
    "CipherHeader",
    "Decryptor",
    "FunctionalKey",
    "MasterPublic",
    "MasterSecret",
    "batch_leaf",
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
    "header_for",
    "key_bytes",
    "leak_budget",
    "setup",
    "verify_key",
]
