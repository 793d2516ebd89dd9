"""What every role of the market does: send calls under its own key, open keys sealed for it, fetch models."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from learnchain.encoding.codec import Address
from learnchain.encoding.cryptography import ciphertext_bytes, decrypt_file, key_hash
from learnchain.execution.wallet import Wallet
from learnchain.market.contract import ContractClient, TaskView, calldata
from learnchain.market.package import PackageManifest, derive_public_key, open_key, read_package, seal_key, seal_purpose
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.blobs.blob_store import BlobStore


@dataclass(slots=True)
class MarketClient:
    """Join an account, a chain, a blob store and a task."""

    wallet: Wallet
    ledger: ContractClient
    contract: Address
    blobs: BlobStore
    view: TaskView
    directory: Path
    entropy: Callable[[int], bytes]
    _sealed: set[tuple[int, Address]] = field(default_factory=set)

    @property
    def public_key(self) -> bytes:
        """Return the key that others seal for."""
        return derive_public_key(self.wallet.private_key)

    async def send(self, data: bytes, value_wei: int = 0) -> None:
        """Call the contract and wait until the call is in a block."""
        await self.ledger.send(self.wallet, self.contract, data, value_wei)

    async def try_send(self, data: bytes) -> bool:
        """Call the contract where somebody else may have been faster; return whether it was we."""
        try:
            await self.send(data)
        except Rejected as error:
            if error.reason is not RejectionReason.EXECUTION_REVERTED:
                raise
            return False
        return True

    async def withdraw(self) -> int:
        """Pull what was earned, staked or returned; return the amount in wei."""
        amount_wei = await self.view.withdrawable(self.wallet.address)
        if amount_wei:
            await self.send(calldata("withdraw"))
        return amount_wei

    async def seal(self, model_index: int, key: bytes, recipients: tuple[Address, ...]) -> int:
        """Hand a model's key to all who have none from us yet; return to how many.

        What others sealed does not count: they may have sealed garbage.
        """
        sent = 0
        for recipient in recipients:
            given = any(
                each.sender == self.wallet.address for each in self.view.sealed.get((model_index, recipient), [])
            )
            known = given or (model_index, recipient) in self._sealed or recipient == self.wallet.address
            if known or recipient not in self.view.public_keys:
                continue
            purpose = seal_purpose(self.view.task_id, model_index)
            sealed = seal_key(key, self.view.public_keys[recipient], purpose, self.entropy(32))
            await self.send(calldata("sealKey", self.view.task_id, model_index, recipient, sealed))
            self._sealed.add((model_index, recipient))
            sent += 1
        return sent

    def key_of(self, model_index: int) -> bytes:
        """Return a model's key from what was sealed for us; garbage beside the right one is passed over."""
        boxes = self.view.sealed.get((model_index, self.wallet.address), [])
        purpose = seal_purpose(self.view.task_id, model_index)
        for each in boxes:
            try:
                key = open_key(each.box, self.wallet.private_key, purpose)
            except Rejected:
                continue
            if key_hash(key) == self.view.models[model_index].key_hash:
                return key
        if any(each.sender == self.view.models[model_index].contributor for each in boxes):
            raise Rejected(RejectionReason.KEY_MISMATCH, f"the contributor sealed another key for model {model_index}")
        raise Unavailable(f"the key of model {model_index}")

    async def unpack(self, model_index: int) -> tuple[PackageManifest, Path]:
        """Fetch, decrypt and check a model; return its manifest and the file of its weights."""
        key, bound = self.key_of(model_index), self.view.description.maximum_model_bytes
        encrypted = await self.blobs.fetch(self.view.models[model_index].cid, max_bytes=ciphertext_bytes(bound))
        self.directory.mkdir(parents=True, exist_ok=True)
        package, weights = self.directory / f"{model_index}.package", self.directory / f"{model_index}.safetensors"
        try:
            decrypt_file(encrypted, package, key, bound)
            return read_package(package, self.view.description, weights), weights
        finally:
            package.unlink(missing_ok=True)
