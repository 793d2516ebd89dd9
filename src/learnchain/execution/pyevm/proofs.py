"""Merkle proofs of accounts and storage (EIP-1186): what a light wallet needs to check an answer against a header."""

from collections.abc import Sequence
from typing import Any, cast

import rlp
from trie import HexaryTrie

from learnchain.execution.pyevm.headers import EMPTY_TRIE_ROOT, rlp_encode
from learnchain.execution.pyevm.json_values import read_bytes, read_quantity, write_bytes, wrong_argument
from learnchain.execution.pyevm.records import Records
from learnchain.execution.pyevm.state import Overlay
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.hashing import keccak256

MAXIMUM_PROOF_KEYS = 128
_EMPTY_CODE_HASH: Hash32 = keccak256(b"")


def account_proof(records: Records, state_root: Hash32, address: Address, keys: Sequence[Any]) -> dict[str, Any]:
    """Return an account with the trie nodes that prove it and the asked storage words, absent ones too."""
    if not isinstance(keys, list) or len(keys) > MAXIMUM_PROOF_KEYS:
        raise wrong_argument(f"storage keys are a list of at most {MAXIMUM_PROOF_KEYS}")
    accounts = HexaryTrie(Overlay(records), state_root)
    nonce, balance_wei, storage_root, code_hash = _account(accounts, keccak256(address))
    storage = HexaryTrie(Overlay(records), storage_root)
    return {
        "address": write_bytes(address),
        "accountProof": _nodes(accounts, keccak256(address)),
        "balance": hex(balance_wei),
        "codeHash": write_bytes(code_hash),
        "nonce": hex(nonce),
        "storageHash": write_bytes(storage_root),
        "storageProof": [_storage_proof(storage, key) for key in keys],
    }


def _account(accounts: HexaryTrie, key: Hash32) -> tuple[int, int, Hash32, Hash32]:
    data = bytes(accounts[key])
    if not data:
        return 0, 0, EMPTY_TRIE_ROOT, _EMPTY_CODE_HASH
    nonce, balance, storage_root, code_hash = rlp.decode(data)
    return int.from_bytes(nonce, "big"), int.from_bytes(balance, "big"), bytes(storage_root), bytes(code_hash)


def _storage_proof(storage: HexaryTrie, key: Any) -> dict[str, Any]:
    slot = _slot(key)
    data = bytes(storage[keccak256(slot)])
    value = int.from_bytes(bytes(cast("bytes", rlp.decode(data))), "big") if data else 0
    return {"key": key, "value": hex(value), "proof": _nodes(storage, keccak256(slot))}


def _slot(key: Any) -> bytes:
    """Return the 32 bytes of a storage key, which callers write as a number or as padded bytes."""
    if isinstance(key, str) and len(key) == 66:
        return read_bytes(key, "storage key", 32)
    return read_quantity(key, "storage key").to_bytes(32, "big")


def _nodes(trie: HexaryTrie, key: Hash32) -> list[str]:
    """Return the nodes from the root down; the last one is where the key lies or where its absence shows."""
    return [write_bytes(rlp_encode(node)) for node in trie.get_proof(key) if node]
