"""Encrypted training rows between disk, vault and the encryption process: the data node's part, then the miner's."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from learnchain.learning.data import DataSet, PreparedPart, save_data
from learnchain.node.encryption.jobs import CheckRows, EncryptRows, IssueKey, PromisedRows
from learnchain.node.encryption.process import Carrier
from learnchain.node.vault import Vault
from learnchain.primitives.ciphers import decrypt_file, encrypt_file, key_hash
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.task_specification import DataPart, Encryption, TaskSpecification
from learnchain.primitives.training_terms import SecureMapping, TrainingTerms


def is_encrypted(part: DataPart, promised: TaskSpecification) -> bool:
    """Return whether a part of a task stays encrypted when its data key is out; test sets never do."""
    return promised.encryption is Encryption.INNER_PRODUCT and part == promised.data.training


async def prepare_encrypted_part(
    data: DataSet, key: bytes, seed: bytes, path: Path, carry_out: Carrier
) -> PreparedPart:
    """Write the file of encrypted rows, wrapped like all data, so that labels too wait for the previous block."""
    with TemporaryDirectory(dir=path.parent) as place:
        plain, rows = Path(place) / "plain", Path(place) / "rows"
        save_data(plain, data)
        made = await carry_out(EncryptRows(seed, key, str(plain), str(rows)))
        size = encrypt_file(rows, path, key)
    return PreparedPart(path, bytes.fromhex(made["root"]), key_hash(key), len(data), size)


async def issued_key(vault: Vault, carry_out: Carrier, part: DataPart, terms: TrainingTerms) -> bytes:
    """Return the functional key of one block's vectors; refuse beyond the leak budget, which survives restarts."""
    seed = vault.seed(part.plaintext_root)
    if seed is None or not isinstance(terms, SecureMapping):
        raise Rejected(RejectionReason.ENCRYPTION_UNSUITABLE, "no master key, or no mapping layer, for these rows")
    with TemporaryDirectory() as place:
        target = Path(place) / "key"
        await carry_out(IssueKey(seed, terms, vault.released(part.plaintext_root), str(target)))
        # On disk before on the wire: what a killed data node may have given away counts as given away.
        vault.keep_released(part.plaintext_root, terms)
        return target.read_bytes()


async def unwrap_rows(
    encrypted: Path, promised: TaskSpecification, key: bytes, target: Path, carry_out: Carrier
) -> None:
    """Open the wrapping of encrypted rows; refuse a key or a file other than those committed at posting."""
    part = promised.data.training
    if key_hash(key) != part.key_hash:
        raise Rejected(RejectionReason.KEY_MISMATCH, "the key does not hash to the commitment of the task")
    await asyncio.to_thread(decrypt_file, encrypted, target, key, part.ciphertext_bytes)
    await carry_out(CheckRows(str(target), promised_rows(promised, key)))


def promised_rows(promised: TaskSpecification, key: bytes) -> PromisedRows:
    """Return what a task promises of its encrypted rows."""
    part, data = promised.data.training, promised.data
    return PromisedRows(key, part.rows, part.plaintext_root, data.sample_shape, data.classes, promised.metric)
