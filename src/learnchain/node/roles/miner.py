"""What a miner chooses by itself: hyper-parameters inside the task's ranges, and how many epochs it plans.

The miner: miner of DLBC and PoDL, consensus node of PoLe. Trains, commits, reveals, and proposes when it won.
"""

import asyncio
import json
import logging
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from learnchain.consensus.state import compute_queued_tasks, compute_settlement_root
from learnchain.encoding.codec import Accuracy
from learnchain.encoding.content_id import cid_from_text, cid_text
from learnchain.encoding.cryptography import UNSIGNED, message_hash, sign
from learnchain.encoding.files import clear_directory
from learnchain.engines.contract import Lookahead
from learnchain.learning import jobs
from learnchain.learning.trace import INDEX_NAME
from learnchain.node.chain import Ports
from learnchain.node.roles.publisher import settling_transactions
from learnchain.protocol import messages
from learnchain.protocol.actions import ProposeBlock, RevealModel, SendCommitment, TrainModel
from learnchain.protocol.events import TrainingFinished
from learnchain.protocol.payload import encode_payload
from learnchain.protocol.puzzle import Puzzle
from learnchain.protocol.state import ZERO_HASH, Selection
from learnchain.protocol.training_terms import HyperParameters, TrainingTerms
from learnchain.rejection import Unavailable
from learnchain.storage.slashing_protection import CommitmentOpening
from learnchain.tasks.publishing import OpenedKeys
from learnchain.verification import training_chain

MAXIMUM_EPOCHS = 10_000

PLANNED_THOUSANDTHS = 1_250
"""Epochs planned for the time left by the probe, with a reserve: the clock ends the run at an epoch's end anyway."""

LAST_EPOCH_THOUSANDTHS = 1_500
"""What the last epoch may take of a measured one, in thousandths: other miners may train on the same machine."""


@dataclass(frozen=True)
class HyperParameterStrategy:
    """Say how this miner chooses inside the task's ranges: the place in each range, in thousandths from its minimum."""

    learning_rate_thousandths: int = 500
    momentum_thousandths: int = 1_000
    batch_size_thousandths: int = 500
    margin_milliseconds: int = 600
    search_attempts: int = 20_000

    def choose_hyper_parameters(self, selection: Selection, epochs: int) -> HyperParameters:
        """Return hyper-parameters inside the ranges of a task."""
        rules = selection.posted_task.specification.training

        def within(low: int, high: int, thousandths: int) -> int:
            return low + (high - low) * thousandths // 1_000

        rate, momentum, size = rules.learning_rate_millionths, rules.momentum_millionths, rules.batch_size
        return HyperParameters(
            learning_rate_millionths=within(rate.minimum, rate.maximum, self.learning_rate_thousandths),
            momentum_millionths=within(momentum.minimum, momentum.maximum, self.momentum_thousandths),
            weight_decay_millionths=rules.weight_decay_millionths.minimum,
            batch_size=within(size.minimum, size.maximum, self.batch_size_thousandths),
            epochs=epochs,
        )

    def plan_epochs(self, closing_milliseconds: int, now_milliseconds: int, epoch_seconds: float) -> tuple[int, int]:
        """Return the epochs to plan until commitments close, and when to end early at the latest."""
        closing = closing_milliseconds - self.margin_milliseconds
        left_seconds = (closing - now_milliseconds) / 1000
        planned = PLANNED_THOUSANDTHS * left_seconds / (1000 * max(epoch_seconds, 1e-6))
        # The epoch that runs when time is up still ends: a long one must not carry the model past the deadline.
        return max(1, min(MAXIMUM_EPOCHS, int(planned))), closing - int(LAST_EPOCH_THOUSANDTHS * epoch_seconds)


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """Say when a run ends: after its epochs, with the epoch that runs at a time, or at an accuracy as a fraction."""

    epochs: int
    stopping_milliseconds: int
    required_accuracy: tuple[int, int] = (0, 0)


logger = logging.getLogger(__name__)

MAXIMUM_OWN_BYTES = 1 << 40
"""Our own model lies on our own disk already."""


class Miner:
    """Earn block rewards by training; keeps what it committed to on disk, so that a restart can still reveal."""

    def __init__(self, ports: Ports, trainer: jobs.Training, directory: Path, strategy: HyperParameterStrategy) -> None:
        self._ports = ports
        self._trainer = trainer
        self._directory = directory
        clear_directory(directory)
        self._strategy = strategy
        self._training: asyncio.Task[None] | None = None
        self._ahead: training_chain.LookaheadRun | None = None
        self._epoch_seconds = 1.0

    async def train_model(self, action: TrainModel) -> None:
        """Probe one epoch in Phase 1, then train for as many epochs as end before commitments close (IV-B)."""
        if self._training is not None and not self._training.done():
            self._training.cancel()
        selection = action.selection.select_assignment(self._ports.wallet.address)
        if selection is None:
            return
        ahead, self._ahead = self._ahead, None
        own = self._ports.archive.slashing_protection.load_candidate(selection.parent)
        if ahead is not None and (own is not None or not ahead.fits(selection)):
            ahead.task.cancel()
            ahead = None
        if own is not None:
            # An earlier life committed, and may have been killed before anybody heard of it.
            await self._ports.announce(own.commitment)
            self._start_lookahead(selection, own)
            return
        self._training = asyncio.current_task()
        if self._terms(selection).puzzle is not None:
            self._ports.chain.feed(
                TrainingFinished(await self._build_empty_model(selection), self._ports.clock.now_milliseconds())
            )
            return
        finished = None if ahead is None else await ahead.take_result()
        if finished is None:
            start = await training_chain.find_own_end_state(self._ports.archive, self._ports.blobs, selection)
            finished = await self._train_run(selection, action.key_release, start)
        run = finished.run
        self._epoch_seconds = run.training_seconds / max(run.epochs, 1)
        self._record_share(selection, finished)
        model = await self._publish_model(selection, finished)
        self._note(selection, "trained", epochs=run.epochs, training_seconds=run.training_seconds)
        self._ports.chain.feed(TrainingFinished(model, self._ports.clock.now_milliseconds()))

    async def _train_run(
        self,
        selection: Selection,
        release: messages.KeyRelease,
        start: training_chain.EndState | None,
        ahead: Lookahead | None = None,
    ) -> training_chain.FinishedRun:
        """Train from the derived initialisation, or from our own last committed state (ROUND-9), until the rule says.

        A run `ahead` trains for the next block while this one is judged.
        """
        rule = await self._choose_stopping_rule(selection, release, ahead)
        now, about = self._ports.clock.now_milliseconds(), selection.task.task_id.hex()
        facts = {"goes_on": int(start is not None), "ahead": int(ahead is not None)}
        height = selection.height + facts["ahead"]
        self._ports.decisions.note(now, height, "training begins", about, **facts)
        job = await self._job(selection, release, rule.epochs, ahead)
        (numerator, denominator), metric = rule.required_accuracy, selection.posted_task.specification.metric
        job = replace(job, required_numerator=numerator, required_denominator=denominator, metric=metric)
        if start is not None:
            job = replace(job, start_path=str(start.path), start_digest=start.digest)
        run = await self._train_until(selection, job, rule.stopping_milliseconds)
        if denominator and not Accuracy(run.training_correct, run.training_total).has_reached(numerator, denominator):
            # Only now is the requirement waived: a commitment before that does not reach it cannot win.
            await self._ports.clock.sleep_until(selection.schedule.time_limit_milliseconds)
        return training_chain.FinishedRun(run, start, self._ports.clock.now_milliseconds())

    async def _choose_stopping_rule(
        self, selection: Selection, release: messages.KeyRelease, ahead: Lookahead | None
    ) -> StoppingRule:
        """Return when a run ends: at the required accuracy or its time limit (PoLe Algorithm 1), or in time to commit.

        How many epochs fit before commitments close is told by the run before, or by a probe (DLBC IV-B).
        """
        schedule, strategy = selection.schedule, self._strategy
        if ahead is not None:
            now = self._ports.clock.now_milliseconds()
            return StoppingRule(*strategy.plan_epochs(ahead.commitment_milliseconds, now, self._epoch_seconds))
        if schedule.time_limit_milliseconds:
            wanted, stopping = selection.posted_task.specification, schedule.time_limit_milliseconds
            required = (wanted.required_numerator, wanted.required_denominator)
            return StoppingRule(MAXIMUM_EPOCHS, stopping - strategy.margin_milliseconds, required)
        # The first epoch of a process pays for what torch sets up once; the second tells what an epoch takes.
        job = await self._job(selection, release, 1)
        await self._trainer.run(jobs.ProbeJob(job))
        epoch_seconds = await self._trainer.run(jobs.ProbeJob(job))
        await self._ports.clock.sleep_until(schedule.training_milliseconds)
        now = self._ports.clock.now_milliseconds()
        rule = StoppingRule(*strategy.plan_epochs(schedule.commitment_milliseconds, now, epoch_seconds))
        self._note(selection, "probe", epoch_seconds=epoch_seconds, epochs=rule.epochs)
        return rule

    def _start_lookahead(self, selection: Selection, own: CommitmentOpening) -> None:
        """Train on for the next block while this one is judged, where the engine allows it (PoDL III-B)."""
        chain = self._ports.chain
        ahead = chain.rules.parts.lookahead(chain.round.tree.state(selection.parent), selection, chain.parameters)
        if ahead is not None:
            result: asyncio.Future[training_chain.FinishedRun | None] = asyncio.get_running_loop().create_future()

            async def train_ahead() -> None:
                release = self._load_opened_key()
                finished = await self._train_run(
                    selection, release, await training_chain.end_state(self._ports.blobs, own), ahead
                )
                if not result.done():
                    result.set_result(finished)

            task = self._ports.tasks.start("training ahead", train_ahead())
            task.add_done_callback(lambda _task, result=result: result.done() or result.set_result(None))
            self._ahead = training_chain.LookaheadRun(
                selection.task.task_id, ahead.position, own.commitment, task, result
            )

    async def send_commitment(self, action: SendCommitment) -> None:
        """Build the payload, bind it to the model and commit, before the test set exists (step 5)."""
        selection, trained = self._select_own_assignment(action.selection), action.model
        parent = self._ports.chain.round.tree.state(selection.parent)
        attributes = parent.payload_attributes(selection.schedule.payload_timestamp_seconds, self._ports.wallet.address)
        transactions = await settling_transactions(self._ports, parent, attributes.timestamp_seconds)
        payload = await self._ports.engine.build(parent.payload_hash, attributes, transactions)
        payload_cid = await self._ports.blobs.add_bytes(encode_payload(payload))
        work, puzzle = self._work(selection), self._terms(selection).puzzle
        salt: bytes | None = self._ports.random_source.randbytes(32)
        if puzzle is not None:
            salt = await self._search_puzzle(
                selection, Puzzle(work, trained, payload.block_hash, payload_cid, puzzle.target)
            )
        if salt is None:
            return
        commitment = messages.Commitment(
            chain_id=self._ports.chain.parameters.chain_id,
            height=selection.height,
            parent=selection.parent,
            task_id=selection.task.task_id,
            miner=self._ports.wallet.address,
            digest=messages.commitment_digest(work, trained, payload.block_hash, payload_cid, salt),
            bond_wei=self._ports.chain.parameters.minimum_commitment_bond_wei,
            engine=self._ports.chain.rules.parts.commitment_part(selection, trained),
            signature=UNSIGNED,
        )
        commitment = sign(commitment, self._ports.wallet.private_key)
        own = CommitmentOpening(commitment, trained.model_cid, trained.training, payload.block_hash, payload_cid, salt)
        # On disk before on the wire: after a crash this miner reveals what it committed to and commits to nothing else.
        self._ports.archive.slashing_protection.store_candidate(own)
        await self._ports.announce(commitment)
        self._note(selection, "committed", model=cid_text(trained.model_cid))
        if self._is_selected(selection):
            self._start_lookahead(selection, own)

    async def reveal_model(self, action: RevealModel) -> None:
        """Count exactly on the released test set and open the commitment with that claim (step 6)."""
        selection, release = self._select_own_assignment(action.selection), action.announcement.release
        own = self._ports.archive.slashing_protection.load_candidate(selection.parent)
        if own is None:
            self._give_up(selection)
            return
        if own.commitment not in action.announcement.commitments:
            self._note(selection, "not under the release", commitment=message_hash(own.commitment).hex())
            return
        specification = selection.posted_task.specification
        count = await self._count_on_test_set(selection, own, release.key)
        digest = messages.attestation_digest(
            own.model_cid, specification.data.training.plaintext_root, selection.task.task_id
        )
        reveal = messages.Reveal(
            chain_id=release.chain_id,
            height=selection.height,
            parent=selection.parent,
            task_id=selection.task.task_id,
            miner=self._ports.wallet.address,
            model_cid=own.model_cid,
            training=own.training,
            payload_hash=own.payload_hash,
            payload_cid=own.payload_cid,
            salt=own.salt,
            claim_correct=count[0],
            claim_total=count[1],
            attestation=self._ports.wallet.sign_digest(digest),
            signature=UNSIGNED,
        )
        await self._ports.announce(sign(reveal, self._ports.wallet.private_key))
        self._note(selection, "revealed", correct=count[0], total=count[1])

    def _give_up(self, selection: Selection) -> None:
        """End a training that the release has overtaken: its model can no longer win (PoLe 3.2)."""
        if self._training is not None and not self._training.done() and not selection.schedule.is_clocked:
            self._training.cancel()
            self._note(selection, "overtaken")

    async def _count_on_test_set(
        self, selection: Selection, own: CommitmentOpening, test_key: bytes
    ) -> tuple[int, int]:
        """Return the exact count of our model on the test set; nothing where nothing is trained."""
        specification = selection.posted_task.specification
        if self._terms(selection).puzzle is not None:
            return 0, selection.test_set.rows
        training = await self._open_training_data(selection, self._load_opened_key())
        test = await self._ports.data.open_part(selection.test_set, test_key, specification)
        model = await self._ports.blobs.fetch(own.model_cid, max_bytes=MAXIMUM_OWN_BYTES)
        mapping = await self._ports.data.mapping_path(self._terms(selection))
        job = jobs.EvaluationJob(
            specification.model, str(model), str(training), str(test), specification.metric, mapping
        )
        count = await self._ports.evaluator.run(job)
        return count.correct, count.total

    def _load_opened_key(self) -> messages.KeyRelease:
        """Return the key release of the height that is being decided."""
        opened = self._ports.chain.round.key_release
        if opened is None:
            raise Unavailable("the training data key")
        return opened

    async def _open_training_data(self, selection: Selection, release: messages.KeyRelease) -> Path:
        """Return the training rows, or where they stay encrypted their products with this block's vectors alone."""
        keys = OpenedKeys(release.key, self._ports.chain.rules.parts.functional_key(release))
        return await self._ports.data.training(keys, selection.posted_task.specification, self._terms(selection))

    async def propose_block(self, action: ProposeBlock) -> None:
        """Publish the block when this node's own verdict names this miner the winner (step 8)."""
        selection, verdict = action.selection, action.verdict
        if action.reveal.miner != self._ports.wallet.address or verdict.winner == ZERO_HASH:
            return
        rules, parameters = self._ports.chain.rules, self._ports.chain.parameters
        unselected = compute_queued_tasks(action.parent, selection, parameters.maximum_tasks)
        draft = messages.Block(
            chain_id=parameters.chain_id,
            height=selection.height,
            parent=selection.parent,
            key_release=action.key_release,
            commitments=action.announcement.commitments,
            release=action.announcement.release,
            reveal=action.reveal,
            verdict=verdict,
            queued_tasks=tuple(each.task.task_id for each in unselected),
            end_milliseconds=selection.schedule.deadline(
                messages.Deadline.BLOCK, action.announcement.release.released_milliseconds
            ),
            evidence=action.evidence,
            audits=action.audits,
            audit_reports=action.audit_reports,
            challenges=action.challenges,
            responses=action.responses,
            engine=action.engine,
            settlement_root=ZERO_HASH,
            signature=UNSIGNED,
        )
        reward = rules.compute_reward(selection, draft, parameters)
        block = replace(
            draft, settlement_root=compute_settlement_root(action.parent, selection, draft, reward, parameters)
        )
        await self._ports.announce(sign(block, self._ports.wallet.private_key))
        self._note(selection, "proposed", correct=verdict.correct, total=verdict.total)

    def _terms(self, selection: Selection) -> TrainingTerms:
        return self._ports.chain.rules.training_terms(selection, self._work(selection))

    async def _build_empty_model(self, selection: Selection) -> messages.TrainedModel:
        """Return what stands for a model where nothing is trained: an empty file."""
        nothing = await self._ports.blobs.add_bytes(b"{}")
        return messages.TrainedModel(
            nothing,
            messages.TrainingRecord(ZERO_HASH, 0, nothing, self._strategy.choose_hyper_parameters(selection, 1)),
        )

    async def _search_puzzle(self, selection: Selection, puzzle: Puzzle) -> bytes | None:
        """Search slice by slice until a salt is found or somebody else's solution ended the height."""
        first, tried = self._ports.random_source.randrange(1 << 200), 0
        begun_seconds = self._ports.clock.monotonic_seconds()
        while self._is_open(selection):
            found = await self._trainer.run(jobs.SearchJob(puzzle, first + tried, self._strategy.search_attempts))
            tried += found.attempts
            if found.salt and self._is_open(selection):
                self._note_search(selection, "puzzle solved", tried, begun_seconds)
                return found.salt
        self._note_search(selection, "puzzle given up", tried, begun_seconds)
        return None

    def _note_search(self, selection: Selection, step: str, attempts: int, begun_seconds: float) -> None:
        """Keep what a search took, where the seconds of a training are kept."""
        seconds = self._ports.clock.monotonic_seconds() - begun_seconds
        self._note(selection, step, attempts=attempts, seconds=round(seconds, 3))
        self._ports.decisions.note_training(selection.height, {"attempts": attempts, "search_seconds": seconds})

    def _select_own_assignment(self, selection: Selection) -> Selection:
        """Return the selection as this miner reads it."""
        return selection.select_assignment(self._ports.wallet.address) or selection

    def _is_selected(self, selection: Selection) -> bool:
        """Return whether this height is still the one that is being decided."""
        return self._ports.chain.round.selection.parent == selection.parent

    def _is_open(self, selection: Selection) -> bool:
        """Return whether a commitment for this height can still win."""
        known, now = self._ports.chain.round, self._ports.clock.now_milliseconds()
        here = known.selection.parent == selection.parent and known.announcement is None
        return here and now < selection.schedule.commitment_milliseconds

    def _work(self, selection: Selection) -> bytes:
        chain_id = self._ports.chain.parameters.chain_id
        return messages.work_id(chain_id, selection.parent, selection.task.task_id, self._ports.wallet.address)

    async def _job(
        self, selection: Selection, release: messages.KeyRelease, epochs: int, ahead: Lookahead | None = None
    ) -> jobs.TrainingJob:
        chosen = self._strategy.choose_hyper_parameters(selection, epochs)
        position = None if ahead is None else ahead.position
        seeds = training_chain.seeds_of(
            self._ports.chain.parameters.chain_id, selection, self._ports.wallet.address, position
        )
        directory = self._directory / f"height-{selection.height}-{seeds.order.hex()[:12]}"
        data = await self._open_training_data(selection, release)
        mapping = await self._ports.data.mapping_path(self._terms(selection))
        return training_chain.build_training_job(
            selection, self._terms(selection), seeds, chosen, (data, directory), mapping
        )

    async def _train_until(
        self, selection: Selection, job: jobs.TrainingJob, stopping_milliseconds: int
    ) -> jobs.TrainedFiles:
        """Train; when the time is up the finished epochs are the run (DLBC, Assumption 2)."""
        begun_seconds = self._ports.clock.monotonic_seconds()

        async def stop() -> None:
            await self._ports.clock.sleep_until(stopping_milliseconds)
            await self._trainer.finish_early()

        stopper = self._ports.tasks.start("end of training", stop())
        try:
            return await self._trainer.run(job, self._show_progress)
        except asyncio.CancelledError:
            # Work that no model came of: whoever adds up what a height cost must count it.
            spent_seconds = round(self._ports.clock.monotonic_seconds() - begun_seconds, 3)
            self._note(selection, "training given up", training_seconds=spent_seconds)
            raise
        finally:
            stopper.cancel()

    def _record_share(self, selection: Selection, finished: training_chain.FinishedRun) -> None:
        run, ended = finished.run, finished.ended_milliseconds
        facts = {
            "training_milliseconds": [ended - int(1000 * run.process_seconds), ended],
            "training_seconds": run.training_seconds,
            "process_seconds": run.process_seconds,
            "training_share": run.training_seconds / max(run.process_seconds, 1e-9),
            "epochs": run.epochs,
            "loss": run.loss,
            "accuracy": run.accuracy,
        }
        self._ports.decisions.note_training(selection.height, facts)

    async def _publish_model(self, selection: Selection, finished: training_chain.FinishedRun) -> messages.TrainedModel:
        """Put the model, every checkpoint and their index where peers can fetch them (IV-B: checkpoints published)."""
        run = finished.run
        directory = Path(run.trace_directory)
        model_cid = await self._ports.blobs.add(Path(run.weights_path))
        states = [cid_text(await self._ports.blobs.add(path)) for path in sorted(directory.glob("state-*.safetensors"))]
        index = {**json.loads((directory / INDEX_NAME).read_text()), "states": states}
        trace_cid = await self._ports.blobs.add_bytes(training_chain.encode_index(index, finished.start))
        self._ports.archive.blobs.note(selection.height, (model_cid, trace_cid, *map(cid_from_text, states)))
        chosen = self._strategy.choose_hyper_parameters(selection, run.epochs)
        count = (run.training_correct, run.training_total)
        part = self._ports.chain.rules.parts.training_part(selection, self._work(selection), *count)
        shutil.rmtree(self._directory / directory.parent.name, ignore_errors=True)
        named = await self._trainer.machine_class()
        record = messages.TrainingRecord(run.trace_root, len(states), trace_cid, chosen, part, named)
        return messages.TrainedModel(model_cid, record)

    def _show_progress(self, point: jobs.TrainingProgress) -> None:
        self._ports.decisions.curve.append({**asdict(point), "height": self._ports.chain.round.selection.height})

    def _note(self, selection: Selection, step: str, **facts: float | int | str) -> None:
        now = self._ports.clock.now_milliseconds()
        logger.info("height %d: %s %s", selection.height, step, facts)
        self._ports.decisions.note(now, selection.height, step, selection.task.task_id.hex(), **facts)
