"""Train a model: the one loop of the project, its seeds derived from the miner's `work_id` (ROUND-9).

Initialisation, batch order and dropout come from SHAKE-256 of `work_id`, so a trajectory belongs to one miner at one
height; the number of epochs is fixed before the first step; with one thread the run is bit-identical in any process
on the same instruction set. The loop never learns which chain it serves: it reads `TrainingTerms` and nothing else.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from learnchain.learning.data import DataSet, permutation
from learnchain.learning.jobs import TrainingJob, TrainingProgress
from learnchain.learning.model import SeededDropout, build_model, check_finite, initial_weights, set_weights, weights_of
from learnchain.learning.safe_tensors import Array
from learnchain.learning.trace import FIRST_DIGEST, ShownRows, Trace, TraceWriter, read_state, state_digest
from learnchain.learning.watermark import WatermarkTerm
from learnchain.protocol.audit_messages import StateLeaf
from learnchain.protocol.model_specification import ModelSpecification, output_shape
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import HyperParameters, LoopTerms
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MILLION = 1_000_000

_CACHED_BYTES = 1 << 28
"""Samples are converted to float32 once when they fit into this, else batch by batch; the bits are the same."""

GRADIENT_NORM = 1.0
"""Longer gradients of the task's loss are shortened to this: a mark makes the loss steep, and without the bound long
runs at a high learning rate fell from 0.96 to 0.09 on the digits CNN. It is part of what a declared run is."""

NORM_EPSILON = 1e-6
"""Added to the length by which gradients are divided, as torch's own clipping does."""

_MEASURED_STEP = 8
"""Loss and accuracy are read off every so many steps, so that watching training does not slow it down."""

_PROGRESS_SECONDS = 0.2
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Hold everything that determines a run, bit by bit, once the data are given.

    `initial_id` seeds the initialisation where it is not `work_id` that does (ROUND-9).
    """

    specification: ModelSpecification
    optimiser: Optimiser
    hyper_parameters: HyperParameters
    terms: LoopTerms
    work_id: bytes
    checkpoint_interval_steps: int
    initial_id: bytes = b""

    @property
    def initial_seed(self) -> bytes:
        """Return what the initialisation follows from."""
        return self.initial_id or self.work_id


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Hold the outcome: weights, the trace over all states, what was finished, and where the seconds went."""

    weights: dict[str, Array]
    trace: Trace
    epochs: int
    steps: int
    loss: float
    accuracy: float
    training_seconds: float
    trace_seconds: float


@dataclass(frozen=True, slots=True)
class Watcher:
    """Bring in what the loop may not reach for: the clock, a listener, and three ways to stop.

    `finish_early` is asked after each epoch: the finished epochs then are the run (DLBC, Assumption 2); `reached` is
    shown the weights and the epoch's accuracy and ends the run in the same way (PoLe Algorithm 1, line 9).
    `abandon` is asked at each step: nothing remains of the run.
    """

    clock: Clock
    progress: Callable[[TrainingProgress], None] = lambda _progress: None
    finish_early: Callable[[], bool] = lambda: False
    abandon: Callable[[], bool] = lambda: False
    reached: Callable[[dict[str, Array], float], bool] = lambda _weights, _accuracy: False


@dataclass(frozen=True, slots=True)
class Start:
    """Name the state that a run goes on from: the end of the miner's own run of the block before (PoDL III-B)."""

    path: Path
    digest: bytes


def configure_torch(threads: int = 1) -> None:
    """Pin what the bits of training depend on: one thread, deterministic algorithms, full float32 products."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory guards against reading it uninitialised; it costs a pass over every buffer.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyrefly: ignore[missing-attribute]
    torch.set_float32_matmul_precision("highest")


def train(
    plan: TrainingPlan, data: DataSet, watcher: Watcher, directory: Path | None = None, start: Start | None = None
) -> TrainingResult:
    """Train for the planned epochs; states go to `directory`, or are only hashed when there is none."""
    run, writer = TrainingRun(plan, data), TraceWriter(directory)
    if start is not None:
        run.begin_from(start)
    epochs, started, trace_seconds = plan.hyper_parameters.epochs, watcher.clock(), 0.0
    shown, loss, accuracy, epoch = started, 0.0, 0.0, 0

    def keep() -> float:
        before = watcher.clock()
        if writer.last_step != run.step:
            writer.add(run.leaf(), run.state())
        return watcher.clock() - before

    trace_seconds += keep()
    for epoch in range(1, epochs + 1):
        meter = _Meter()
        for rows in run.batches(epoch - 1):
            run.advance(rows, meter)
            if run.step % plan.checkpoint_interval_steps == 0:
                trace_seconds += keep()
            if watcher.abandon():
                raise Unavailable("the training was cancelled")
            now = watcher.clock()
            if now - shown >= _PROGRESS_SECONDS:
                shown, (loss, accuracy) = now, meter.means()
                total = epochs * run.steps_per_epoch
                watcher.progress(TrainingProgress(epoch, epochs, run.step, total, loss, accuracy, now - started))
        loss, accuracy = meter.means()
        total = epochs * run.steps_per_epoch
        watcher.progress(TrainingProgress(epoch, epochs, run.step, total, loss, accuracy, watcher.clock() - started))
        if watcher.finish_early() or watcher.reached(run.weights(), accuracy):
            break
    trace_seconds += keep()
    check_finite(run.weights())
    seconds = watcher.clock() - started
    return TrainingResult(
        run.weights(), writer.finish(), epoch, run.step, loss, accuracy, seconds - trace_seconds, trace_seconds
    )


def probe(plan: TrainingPlan, data: DataSet, clock: Clock) -> float:
    """Return the seconds of one epoch, from which a miner chooses the number of epochs (DLBC, phase 1).

    A first step is taken before: libraries set themselves up in it, and that happens once, not once an epoch.
    """
    run, meter = TrainingRun(plan, data), _Meter()
    run.advance(next(run.batches(0)), meter)
    started = clock()
    for rows in run.batches(0):
        run.advance(rows, meter)
    return clock() - started


def plan_of(job: TrainingJob) -> TrainingPlan:
    """Return what determines the run that a job asks for."""
    chosen = (job.specification, job.optimiser, job.hyper_parameters, job.terms)
    return TrainingPlan(*chosen, job.work_id, job.checkpoint_interval_steps, job.initial_id)


def start_of(job: TrainingJob) -> Start | None:
    """Return the state that a job's run goes on from, if it does."""
    return Start(Path(job.start_path), job.start_digest) if job.start_path else None


class TrainingRun:
    """Hold the full training state of one run and advance it batch by batch."""

    def __init__(self, plan: TrainingPlan, data: DataSet) -> None:
        _check_fit(plan, data)
        self.step = 0
        self._plan = plan
        self._model = build_model(plan.specification)
        set_weights(self._model, initial_weights(plan.specification, plan.initial_seed))
        self._model.train()
        self._parameters = list(self._model.parameters())
        self._optimiser = _optimiser(plan, self._model)
        mark = plan.terms.watermark
        self._term = None if mark is None else WatermarkTerm(mark, plan.specification, self._model)
        self._dropouts = [module for module in self._model.modules() if isinstance(module, SeededDropout)]
        self._shown = ShownRows(data)
        self._data = data
        self._inputs = torch.from_numpy(np.require(data.inputs, requirements=["C", "W"]))
        if data.inputs.size * 4 <= _CACHED_BYTES:
            self._inputs = to_float(self._inputs)
        self._labels = torch.from_numpy(data.labels.astype(np.int64))
        self.steps_per_epoch = steps_per_epoch(plan, len(data))

    def batches(self, epoch: int) -> Iterator[torch.Tensor]:
        """Return the rows of each step of an epoch, in the order that `work_id` draws."""
        return iter([torch.from_numpy(rows) for rows in epoch_rows(self._plan, len(self._labels), epoch)])

    def advance_to(self, step: int) -> None:
        """Take the steps up to `step`, each on the rows that its place in the run draws."""
        while self.step < step:
            epoch, position = divmod(self.step, self.steps_per_epoch)
            for rows in itertools.islice(self.batches(epoch), position, position + step - self.step):
                self.advance(rows, _Meter())

    def advance(self, rows: torch.Tensor, meter: "_Meter") -> None:
        """Take one step of the optimiser."""
        for dropout in self._dropouts:
            dropout.seed = step_seed(self._plan.work_id, self.step)
        self._shown.add(rows.numpy())
        labels = self._labels[rows]
        logits = self._model(to_float(self._inputs[rows]))
        # The mark is read here, where the forward pass has just brought the weights into the cache.
        row = None if self._term is None else self._term.regulariser_gradient()
        loss = functional.cross_entropy(logits, labels)
        self._optimiser.zero_grad()
        loss.backward()
        divisor = self._divisor()
        if self._term is not None and row is not None:
            self._term.apply(row, 1.0 if divisor is None else divisor.item())
        self._optimiser.grad_scale = divisor  # pyrefly: ignore[missing-attribute]
        self._optimiser.step()
        if self.step % _MEASURED_STEP == 0:
            meter.add(loss.item(), (logits.argmax(1) == labels).float().mean().item())
        self.step += 1

    def _divisor(self) -> torch.Tensor | None:
        """Return what bounds the gradient's length; the fused optimiser divides by it in the pass that it makes."""
        # clip_grad_norm_ gives the same length, but groups by device and type first and rewrites every gradient.
        lengths = [torch.linalg.vector_norm(each.grad) for each in self._parameters if each.grad is not None]
        length = torch.linalg.vector_norm(torch.stack(lengths))
        return None if length <= GRADIENT_NORM else (length + NORM_EPSILON) / GRADIENT_NORM

    def leaf(self) -> StateLeaf:
        """Return the leaf of the present state and begin the next segment of the trace."""
        order, points = self._shown.close() if self.step else (FIRST_DIGEST, FIRST_DIGEST)
        return StateLeaf(self.step, self._plan.work_id, order, points, state_digest(self.state()))

    def weights(self) -> dict[str, Array]:
        """Return the model's tensors; they share memory with the run."""
        return weights_of(self._model, self._plan.specification)

    def state(self) -> dict[str, Array]:
        """Return the full training state in its canonical order; the arrays share memory with the run."""
        state = self.weights()
        for name, parameter in self._model.named_parameters():
            memory = self._optimiser.state[parameter]
            for part in _MEMORY_PARTS:
                if part in memory:
                    state[f"{part}/{name}"] = memory[part].numpy()
        return state

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes that a published state must have."""
        return {name: array.shape for name, array in self.state().items()}

    def begin_from(self, start: Start) -> None:
        """Begin with the end state of another run; steps count from zero again, and so does Adam's correction."""
        first = StateLeaf(0, self._plan.work_id, FIRST_DIGEST, FIRST_DIGEST, start.digest)
        self.restore(first, read_state(start.path, start.digest, self.state_shapes()))

    def restore(self, leaf: StateLeaf, state: dict[str, Array]) -> None:
        """Continue from a state of the same plan."""
        self.step = leaf.step
        self._shown = ShownRows(self._data, leaf.order, leaf.points)
        for name, target in self.state().items():
            target[...] = state[name]
        for memory in self._optimiser.state.values():
            if "step" in memory:
                memory["step"].fill_(leaf.step)


_MEMORY_PARTS = ("momentum_buffer", "exp_avg", "exp_avg_sq")


def steps_per_epoch(plan: TrainingPlan, rows: int) -> int:
    """Return the steps of an epoch; a last batch of a single row is left out: it cannot be normalised."""
    batch = plan.hyper_parameters.batch_size
    return max(1, rows // batch + (rows % batch > 1))


def epoch_rows(plan: TrainingPlan, rows: int, epoch: int) -> list[Array]:
    """Return the row numbers of each step of an epoch: a permutation from SHAKE-256 of `work_id` and epoch."""
    order = permutation("batch-order", plan.work_id + epoch.to_bytes(8, "big"), rows)
    batch = plan.hyper_parameters.batch_size
    return [order[start : start + batch] for start in range(0, batch * steps_per_epoch(plan, rows), batch)]


def segment_rows(plan: TrainingPlan, rows: int, first: int, following: int) -> list[Array]:
    """Return the row numbers of the steps from `first` up to `following`."""
    found, each = list[Array](), steps_per_epoch(plan, rows)
    for epoch in range(first // each, -(-following // each)):
        start, end = max(first - epoch * each, 0), min(following - epoch * each, each)
        found.extend(epoch_rows(plan, rows, epoch)[start:end])
    return found


def step_seed(work_id: bytes, step: int) -> bytes:
    """Return the seed of everything that one step draws."""
    return work_id + step.to_bytes(8, "big")


class _Meter:
    """Collect the loss and accuracy of measured batches."""

    def __init__(self) -> None:
        self._loss, self._accuracy, self._count = 0.0, 0.0, 0

    def add(self, loss: float, accuracy: float) -> None:
        self._loss += loss
        self._accuracy += accuracy
        self._count += 1

    def means(self) -> tuple[float, float]:
        return self._loss / max(self._count, 1), self._accuracy / max(self._count, 1)


def to_float(inputs: torch.Tensor) -> torch.Tensor:
    """Return samples as the model reads them: bytes divided by 256, which is exact."""
    return inputs if inputs.dtype == torch.float32 else inputs.to(torch.float32).mul_(1 / 256)


def _optimiser(plan: TrainingPlan, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser with its memory set to zeros, so that a first step and a resumed one are the same."""
    chosen, parameters = plan.hyper_parameters, list(model.parameters())
    rate, decay = chosen.learning_rate_millionths / MILLION, chosen.weight_decay_millionths / MILLION
    momentum = chosen.momentum_millionths / MILLION
    if plan.optimiser is Optimiser.ADAM:
        adam = torch.optim.Adam(parameters, lr=rate, weight_decay=decay, betas=(0.9, 0.999), fused=True)
        for parameter in parameters:
            adam.state[parameter] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return adam
    descent = torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay, fused=True)
    if momentum:
        for parameter in parameters:
            descent.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return descent


def _check_fit(plan: TrainingPlan, data: DataSet) -> None:
    if data.sample_shape != tuple(plan.specification.input_shape):
        detail = f"samples of {data.sample_shape} do not fit a model for {plan.specification.input_shape}"
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)
    classes, *places = output_shape(plan.specification)
    if tuple(data.labels.shape[1:]) != tuple(places) or int(data.labels.max()) >= classes:
        detail = f"labels up to {data.labels.max()} of shape {data.labels.shape[1:]} do not fit the model's output"
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)
    if plan.hyper_parameters.epochs < 1 or plan.hyper_parameters.batch_size < 1 or plan.checkpoint_interval_steps < 1:
        raise Rejected(RejectionReason.HYPERPARAMETER_OUT_OF_RANGE, "epochs, batch size and interval start at one")
