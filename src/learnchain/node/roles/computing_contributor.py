"""The computing contributor (BaaS III): train on private data at home, publish the model, hand out its key.

Only the encrypted model leaves; its data never do. The role reads the chain at every step, so it can stop and go on.
"""

from dataclasses import dataclass
from pathlib import Path

from learnchain.market.contract import announce_model_calldata
from learnchain.market.package import Manifest, check_manifest, write_package
from learnchain.market.terms import BASIS_POINTS
from learnchain.market.votes import ModelStatus
from learnchain.node.market.participant import Participant
from learnchain.node.storage.files import write_whole
from learnchain.primitives.ciphers import encrypt_file, key_hash
from learnchain.primitives.codec import Address
from learnchain.primitives.numbers import Accuracy


@dataclass(frozen=True, slots=True)
class TrainedAtHome:
    """Hold a model trained on private data and how well it does on rows that its owner kept back."""

    manifest: Manifest
    weights: Path
    accuracy: Accuracy


class ComputingContributor:
    """Sell one model to one task."""

    def __init__(self, me: Participant) -> None:
        self._me = me
        self._key: bytes | None = None
        self.place: int | None = None

    async def offer(self, trained: TrainedAtHome) -> bool:
        """Publish the model if it reaches the task's threshold (scenario II: by itself); return whether it was."""
        view = self._me.view
        await view.refresh()
        if view.description.threshold and not trained.accuracy.reaches(view.description.threshold, BASIS_POINTS):
            return False
        check_manifest(trained.manifest, view.description)
        self._me.directory.mkdir(parents=True, exist_ok=True)
        package, encrypted = self._me.directory / "own.package", self._me.directory / "own.encrypted"
        try:
            write_package(trained.manifest, trained.weights, package)
            self._key = self._me.entropy(32)
            encrypt_file(package, encrypted, self._key)
            cid = await self._me.blobs.add(encrypted)
        finally:
            package.unlink(missing_ok=True)
            encrypted.unlink(missing_ok=True)
        await self._me.blobs.pin(cid)
        # Announced first, it could be drawn for before anybody is able to fetch it.
        await self._me.blobs.handed_over()
        write_whole(self._me.directory / "own.key", self._key)
        data = announce_model_calldata(view.task_id, cid, key_hash(self._key), self._me.public_key)
        await self._me.send(data, view.terms.bond_wei)
        await self.step()
        return True

    async def step(self) -> int:
        """Seal the model's key for all to whom it is due by now; return how many were served."""
        view = self._me.view
        await view.refresh()
        key = self._own_key()
        if key is None or not self._find(key):
            return 0
        assert self.place is not None
        return await self._me.seal(self.place, key, await self._due(self.place))

    async def withdraw(self) -> int:
        """Pull reward and bond."""
        return await self._me.withdraw()

    async def _due(self, place: int) -> tuple[Address, ...]:
        """Return who may have the key: the committee, and once rewarded the initiator and the others rewarded (IV-A).

        Whoever judges a later model fuses it with the accepted ones, and so needs their keys too.
        """
        view = self._me.view
        if (await view.model(place)).status is not ModelStatus.ACCEPTED:
            return await view.committee(place)
        task = await view.task()
        rewarded = [view.models[other].contributor for other in view.accepted()]
        judging = [] if task.judged >= task.announced else list(await view.committee(task.judged))
        return tuple(dict.fromkeys([task.initiator, *rewarded, *judging]))

    def _own_key(self) -> bytes | None:
        kept = self._me.directory / "own.key"
        if self._key is None and kept.is_file():
            self._key = kept.read_bytes()
        return self._key

    def _find(self, key: bytes) -> bool:
        for place, model in self._me.view.models.items():
            if model.contributor == self._me.wallet.address and model.key_hash == key_hash(key):
                self.place = place
        return self.place is not None
