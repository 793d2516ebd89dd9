"""The computing contributor (BaaS III): train on private data at home, publish the model, hand out its key.

Only the encrypted model leaves; its data never do. The role reads the chain at every step, so it can stop and go on.

The verification contributor (BaaS III) as a daemon: stake, be drawn, fuse, measure, vote, be paid.

Everything it needs to go on lies on chain, follows from its key or is on disk before it is sent, so it may be stopped
at any moment. A model that breaks a rule is voted down with the reason; one that does not arrive in time likewise;
nothing of a hostile model reaches torch before its manifest, size and tensors were checked.

What a computing contributor does at home: train on private rows, and ask what the model would give away.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from learnchain.encoding.codec import Accuracy, Address
from learnchain.encoding.cryptography import encrypt_file, key_hash, tagged_hash
from learnchain.encoding.files import write_whole
from learnchain.learning.data import DataSet
from learnchain.learning.fused_model import answers_of
from learnchain.learning.model import save_weights
from learnchain.learning.private_training import Membership, PrivacyTerms, membership, row_losses, train_privately
from learnchain.learning.safe_tensors import Array
from learnchain.learning.train import TrainingPlan, Watcher, train
from learnchain.market import contract
from learnchain.market.client import MarketClient
from learnchain.market.package import PackageManifest, check_manifest, write_package
from learnchain.market.terms import BASIS_POINTS, UNAVAILABLE, Ballot, ModelStatus, Vote, refusal_code, vote_commitment
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters
from learnchain.rejection import Rejected, RejectionReason, Unavailable


@dataclass(frozen=True, slots=True)
class LocallyTrainedModel:
    """Hold a model trained on private data and how well it does on rows that its owner kept back."""

    manifest: PackageManifest
    weights: Path
    accuracy: Accuracy


class ComputingContributor:
    """Sell one model to one task."""

    def __init__(self, me: MarketClient) -> None:
        self._me = me
        self._key: bytes | None = None
        self.model_index: int | None = None

    async def offer(self, trained: LocallyTrainedModel) -> bool:
        """Publish the model if it reaches the task's threshold (scenario II: by itself); return whether it was."""
        view = self._me.view
        await view.refresh()
        if view.description.threshold and not trained.accuracy.has_reached(view.description.threshold, BASIS_POINTS):
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
        data = contract.announce_model_calldata(view.task_id, cid, key_hash(self._key), self._me.public_key)
        await self._me.send(data, view.terms.bond_wei)
        await self.step()
        return True

    async def step(self) -> int:
        """Seal the model's key for all to whom it is due by now; return how many were served."""
        view = self._me.view
        await view.refresh()
        key = self._load_own_key()
        if key is None or not self._find(key):
            return 0
        assert self.model_index is not None
        return await self._me.seal(self.model_index, key, await self._list_due_recipients(self.model_index))

    async def withdraw(self) -> int:
        """Pull reward and bond."""
        return await self._me.withdraw()

    async def _list_due_recipients(self, model_index: int) -> tuple[Address, ...]:
        """Return who may have the key: the committee, and once rewarded the initiator and the others rewarded (IV-A).

        Whoever judges a later model fuses it with the accepted ones, and so needs their keys too.
        """
        view = self._me.view
        if (await view.model(model_index)).status is not ModelStatus.ACCEPTED:
            return await view.committee(model_index)
        task = await view.task()
        rewarded = [view.models[other].contributor for other in view.list_accepted()]
        judging = [] if task.judged_count >= task.announced else list(await view.committee(task.judged_count))
        return tuple(dict.fromkeys([task.initiator, *rewarded, *judging]))

    def _load_own_key(self) -> bytes | None:
        kept = self._me.directory / "own.key"
        if self._key is None and kept.is_file():
            self._key = kept.read_bytes()
        return self._key

    def _find(self, key: bytes) -> bool:
        for place, model in self._me.view.models.items():
            if model.contributor == self._me.wallet.address and model.key_hash == key_hash(key):
                self.model_index = place
        return self.model_index is not None


logger = logging.getLogger(__name__)
_PASSING = (RejectionReason.EXECUTION_REVERTED, RejectionReason.TRANSACTION_INVALID)

PATIENCE = 2
"""A model that is not here when 1/2 of the time for commitments is over is voted unavailable."""


class FusionCounter(Protocol):
    """Fuse and measure where torch is."""

    def measure(self, accepted: tuple[int, ...], model_index: int) -> int:
        """Return the right answers of the fusion of the accepted models and one more, all added before."""
        ...

    def add(self, model_index: int, specification: ModelSpecification, labels: tuple[int, ...], weights: Path) -> None:
        """Load a model and compute its features; raise `Rejected` for one that cannot be used."""
        ...

    def is_known(self, model_index: int) -> bool:
        """Return whether a model was added."""
        ...


class VerificationContributor:
    """Verify for one task."""

    def __init__(self, me: MarketClient, fusion: FusionCounter) -> None:
        self._me = me
        self._fusion = fusion
        self._votes: dict[tuple[int, int], Vote] = {}

    async def run(self, pause: Callable[[], Awaitable[None]]) -> None:
        """Verify until the task is closed, then take stake and pay; a chain that does not answer is tried again."""
        while True:
            try:
                if await self.step():
                    await self.leave()
                    return
            except Unavailable as missing:
                logger.info("verification waits for %s", missing.what)
            except Rejected as error:
                # Somebody was faster, or a time has passed since the head was read: the next look says what is due.
                if error.reason not in _PASSING:
                    raise
                logger.info("verification goes on after %s", error)
            await pause()

    async def step(self) -> bool:
        """Do whatever is due; return whether the task is closed."""
        view, me = self._me.view, self._me.wallet.address
        await view.refresh()
        task = await view.task()
        if task.closed:
            return True
        number, now = await self._me.ledger.head()
        if me not in view.enrolled and now <= view.terms.closes_seconds:
            data = contract.calldata("enrol", view.task_id, self._me.public_key)
            await self._me.send(data, view.terms.stake_wei)
        if task.judged_count < task.announced:
            model = await view.model(task.judged_count)
            if model.status is ModelStatus.ANNOUNCED and number >= model.drawable_after:
                await self._me.try_send(contract.calldata("draw", view.task_id, task.judged_count))
            elif model.status is ModelStatus.DRAWN:
                await self._attend(task, model, now)
        return False

    async def leave(self) -> int:
        """Take stake and pay; return the amount in wei."""
        await self._me.try_send(contract.calldata("resign", self._me.view.task_id))
        return await self._me.withdraw()

    async def _attend(self, task: contract.TaskState, model: contract.ModelState, now: int) -> None:
        view, place = self._me.view, task.judged_count
        vote = await view.vote(place, self._me.wallet.address)
        if vote.drawn and vote.attempt == model.attempts:
            await self._share_keys(place)
            if vote.commitment == bytes(32) and now <= model.commit_until:
                await self._commit(place, model, now)
            elif vote.commitment != bytes(32) and not vote.revealed:
                everybody = model.commits == view.terms.committee
                if (everybody or now > model.commit_until) and now <= model.reveal_until:
                    await self._reveal(place, model)
        model = await view.model(place)
        over = model.reveals == view.terms.committee or now > model.reveal_until
        if model.status is ModelStatus.DRAWN and over:
            await self._me.try_send(contract.calldata("judge", view.task_id, place))

    async def _commit(self, model_index: int, model: contract.ModelState, now: int) -> None:
        try:
            vote = await self._compute_vote(model_index, model)
        except Unavailable as missing:
            left = model.commit_until - now
            # Only if nothing but the model itself is missing: for anybody else's absence it must not be blamed.
            earlier = all(self._fusion.is_known(accepted) for accepted in self._me.view.list_accepted())
            if left * PATIENCE > self._me.view.terms.commit_seconds or not earlier:
                logger.info("model %d waits for %s", model_index, missing.what)
                return
            vote = Vote(0, UNAVAILABLE)
        self._remember(model_index, model, vote)
        ballot = Ballot(await self._me.ledger.chain_id(), self._me.contract, self._me.view.task_id, model_index)
        commitment = vote_commitment(ballot, self._me.wallet.address, vote, self._salt(model_index, model))
        await self._me.send(contract.calldata("commitVote", self._me.view.task_id, model_index, commitment))

    async def _reveal(self, model_index: int, model: contract.ModelState) -> None:
        vote = self._votes.get((model_index, model.attempts)) or self._load_vote(model_index, model)
        if vote is None:
            vote = await self._recompute_vote(model_index, model)
        await self._me.try_send(
            contract.calldata(
                "revealVote",
                self._me.view.task_id,
                model_index,
                vote.correct,
                vote.refusal,
                self._salt(model_index, model),
            )
        )

    def _remember(self, model_index: int, model: contract.ModelState, vote: Vote) -> None:
        """Keep a vote where a restart finds it, before its commitment goes out: only this one opens it."""
        self._votes[model_index, model.attempts] = vote
        self._me.directory.mkdir(parents=True, exist_ok=True)
        write_whole(self._vote_file(model_index, model), b"%d %d" % (vote.correct, vote.refusal))

    def _load_vote(self, model_index: int, model: contract.ModelState) -> Vote | None:
        try:
            correct, refusal = self._vote_file(model_index, model).read_text().split()
            return Vote(int(correct), int(refusal))
        except (OSError, ValueError):
            return None

    def _vote_file(self, model_index: int, model: contract.ModelState) -> Path:
        return self._me.directory / f"{model_index}-{model.attempts}.vote"

    async def _recompute_vote(self, model_index: int, model: contract.ModelState) -> Vote:
        """Return the vote of before a restart that left no file: equal models and seeds give equal counts."""
        try:
            return await self._compute_vote(model_index, model)
        except Unavailable:
            return Vote(0, UNAVAILABLE)

    async def _compute_vote(self, model_index: int, model: contract.ModelState) -> Vote:
        accepted = self._me.view.list_accepted()
        for earlier in accepted:
            try:
                await self._load(earlier)
            except Rejected as fault:
                raise Unavailable(f"accepted model {earlier}: {fault}") from fault
        try:
            await self._load(model_index)
            return Vote(await asyncio.to_thread(self._fusion.measure, accepted, model_index))
        except Rejected as fault:
            logger.info("model %d (attempt %d) is refused: %s", model_index, model.attempts, fault)
            return Vote(0, refusal_code(fault.reason))

    async def _load(self, model_index: int) -> None:
        if not self._fusion.is_known(model_index):
            manifest, weights = await self._me.unpack(model_index)
            await asyncio.to_thread(self._fusion.add, model_index, manifest.specification, manifest.labels, weights)

    async def _share_keys(self, model_index: int) -> None:
        """Hand the keys of accepted models to colleagues who joined later, should the contributor be gone."""
        drawn = await self._me.view.committee(model_index)
        for earlier in self._me.view.list_accepted():
            own = await self._me.view.vote(earlier, self._me.wallet.address)
            without = tuple(each for each in drawn if (earlier, each) not in self._me.view.sealed)
            if own.drawn and without and (earlier, self._me.wallet.address) in self._me.view.sealed:
                await self._me.seal(earlier, self._me.key_of(earlier), without)

    def _salt(self, model_index: int, model: contract.ModelState) -> bytes:
        """Return the salt that only the key's owner can compute, and can compute again after a restart."""
        where = self._me.view.task_id + bytes((model_index, model.attempts))
        return tagged_hash("market/vote-salt", self._me.wallet.private_key, where)


@dataclass(frozen=True, slots=True)
class LocalTrainingTerms:
    """Say how contributors train; the paper's 100,000 iterations at 0.0001 overfit 500 rows long before they end.

    `noise` above 0 trains with differential privacy: Gaussian noise of so many gradient norms at every step.
    """

    epochs: int = 40
    learning_rate_millionths: int = 300
    batch_size: int = 32
    noise: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutSplit:
    """Hold private rows: those to learn from, and those kept back to judge by."""

    labels: tuple[int, ...]
    training: DataSet
    held_out: DataSet


@dataclass(frozen=True, slots=True, eq=False)
class LocalTrainingResult:
    """Hold a model, what its losses betray of its rows, and the epsilon that bounds it; None without a bound."""

    model: LocallyTrainedModel
    membership: Membership
    epsilon: float | None


def train_locally(
    specification: ModelSpecification,
    own: HeldOutSplit,
    terms: LocalTrainingTerms,
    directory: Path,
    tools: "LocalTrainingTools",
) -> LocalTrainingResult:
    """Train on private rows; return the model with its accuracy on kept-back rows, and what it gives away."""
    chosen = HyperParameters(terms.learning_rate_millionths, 0, 0, terms.batch_size, terms.epochs)
    weights, epsilon = _train_weights(specification, own.training, chosen, terms.noise, tools)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "home.safetensors"
    save_weights(path, weights)
    right = int((answers_of(specification, weights, own.held_out) == own.held_out.labels).sum())
    members = row_losses(specification, weights, own.training)
    strangers = row_losses(specification, weights, own.held_out)
    accuracy = Accuracy(right, len(own.held_out))
    trained = LocallyTrainedModel(PackageManifest(specification, own.labels), path, accuracy)
    return LocalTrainingResult(trained, membership(members, strangers), epsilon)


@dataclass(frozen=True, slots=True)
class LocalTrainingTools:
    """Bring in the clock and 32 bytes that nobody else knows."""

    clock: Callable[[], float]
    secret: bytes


def _train_weights(
    specification: ModelSpecification, rows: DataSet, chosen: HyperParameters, noise: float, tools: LocalTrainingTools
) -> tuple[dict[str, Array], float | None]:
    if noise:
        found = train_privately(specification, rows, chosen, PrivacyTerms(noise), tools.secret)
        return found.weights, found.epsilon
    plan = TrainingPlan(specification, Optimiser.ADAM, chosen, FreeTraining(), tools.secret, 1 << 30)
    return train(plan, rows, Watcher(tools.clock)).weights, None
