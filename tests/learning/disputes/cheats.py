"""Forged traces: what a cheat publishes instead of training, and segments with one thing changed."""

from dataclasses import replace

import numpy as np

from learnchain.learning.data import DataSet
from learnchain.learning.model import save_weights
from learnchain.learning.replay import AuditedRun
from learnchain.learning.safe_tensors import write_tensors
from learnchain.learning.trace import ShownRows, Trace, state_digest, state_path
from learnchain.learning.train import TrainingRun, segment_rows
from tests.learning.disputes.conftest import rules_of


class Forger:
    """Write a trace state by state, each leaf naming the rows that honest training would have shown."""

    def __init__(self, plan, data, directory):
        self.plan, self.data, self.directory = plan, data, directory
        self.run = TrainingRun(plan, data)
        self.steps = plan.hyper_parameters.epochs * self.run.steps_per_epoch
        self.leaves, self.shown = [], None
        directory.mkdir(parents=True, exist_ok=True)

    def states_at(self):
        interval = self.plan.checkpoint_interval_steps
        return [*range(0, self.steps, interval), self.steps]

    def put(self, step, state):
        """Publish a state, whatever it is, under a leaf whose seed, order and points are the right ones."""
        honest = {} if not self.leaves else self._rows(step)
        leaf = replace(self._blank(step), digest=state_digest(state), **honest)
        write_tensors(state_path(self.directory, len(self.leaves)), state)
        self.leaves.append(leaf)

    def _blank(self, step):
        first = TrainingRun(self.plan, self.data).leaf() if not self.leaves else self.leaves[-1]
        return replace(first, step=step)

    def _rows(self, step):
        before = self.leaves[-1]
        shown = ShownRows(self.data, before.order, before.points)
        for rows in segment_rows(self.plan, len(self.data), before.step, step):
            shown.add(rows)
        order, points = shown.close()
        return {"order": order, "points": points}

    def published(self, weights):
        path = self.directory / "model.safetensors"
        save_weights(path, weights)
        return AuditedRun(self.plan, rules_of(self.plan), Trace(tuple(self.leaves)), self.directory, path)


def copied(state):
    return {name: array.copy() for name, array in state.items()}


def honest_states(plan, data):
    run = TrainingRun(plan, data)
    forger = Forger(plan, data, _Nowhere())
    found = []
    for step in forger.states_at():
        run.advance_to(step)
        found.append(copied(run.state()))
    return found


class _Nowhere:
    def mkdir(self, **_arguments):
        """Nothing is written."""


def interpolated(plan, data, directory, end):
    """Walk in a straight line from the derived initialisation to a model that somebody else trained."""
    forger = Forger(plan, data, directory)
    start, steps = copied(forger.run.state()), forger.states_at()
    for place, step in enumerate(steps):
        share = np.float32(place / (len(steps) - 1))
        state = {name: start[name] + share * (end[name] - start[name]) for name in start}
        forger.put(step, state if place < len(steps) - 1 else end)
    return forger.published({name: end[name] for name in forger.run.weights()})


def tiny_steps(plan, data, directory, end, factor=1e-3):
    """Start at the initialisation, jump to the stolen model at once, and change it by next to nothing afterwards."""
    forger = Forger(plan, data, directory)
    generator = np.random.default_rng(3)
    forger.put(0, copied(forger.run.state()))
    steps = forger.states_at()
    for step in steps[1:]:
        noise = 0.0 if step == steps[-1] else factor
        state = {
            name: array + (noise * generator.normal(0, 1, array.shape) * np.abs(array).mean()).astype(np.float32)
            for name, array in end.items()
        }
        forger.put(step, state)
    return forger.published({name: end[name] for name in forger.run.weights()})


def glued(plan, data, directory, end, segments=1):
    """Train honestly, and let the last segments lead to a model that somebody else trained."""
    forger = Forger(plan, data, directory)
    steps = forger.states_at()
    for place, step in enumerate(steps):
        if place >= len(steps) - segments:
            share = np.float32((place - len(steps) + segments + 1) / segments)
            here = forger.run.state()
            forger.put(step, {name: here[name] + share * (end[name] - here[name]) for name in end})
        else:
            forger.run.advance_to(step)
            forger.put(step, copied(forger.run.state()))
    return forger.published({name: end[name] for name in forger.run.weights()})


def trained_on_other_data(plan, data, other, directory):
    """Train on data of the same distribution and name the rows of the task."""
    forger = Forger(plan, data, directory)
    cheat = TrainingRun(plan, other)
    for step in forger.states_at():
        cheat.advance_to(step)
        forger.put(step, copied(cheat.state()))
    return forger.published(cheat.weights())


# --- one changed thing in one segment -------------------------------------------------------------------------


def with_changed_segment(plan, data, directory, index, change):
    """Train honestly but for one segment, in which `change` takes the run, and go on honestly from where it led.

    A change that float32 rounds away changes nothing, so it is drawn again.
    """
    forger = Forger(plan, data, directory)
    for place, step in enumerate(forger.states_at()):
        if place == index + 1:
            start, before = forger.run.step, copied(forger.run.state())
            forger.run.advance_to(step)
            honest = state_digest(forger.run.state())
            while state_digest(forger.run.state()) == honest:
                put_back(forger.run, start, before)
                change(forger.run, step)
        else:
            forger.run.advance_to(step)
        forger.put(step, copied(forger.run.state()))
    return forger.published(forger.run.weights())


def put_back(run, step, state):
    """Set a run to a state, without asking for a leaf."""
    for name, target in run.state().items():
        target[...] = state[name]
    for memory in run._optimiser.state.values():
        if "step" in memory:
            memory["step"].fill_(step)
    run.step = step


def changed_checkpoint(generator):
    """Change one random byte of one number at the end of the segment."""

    def change(run, step):
        run.advance_to(step)
        state = run.state()
        target = state[sorted(state)[generator.integers(len(state))]]
        flat, before = target.reshape(-1).view(np.uint8), target.copy()
        while True:
            flat[generator.integers(len(flat))] ^= np.uint8(1 << generator.integers(8))
            if np.isfinite(target).all() and np.abs(target).max() < 1e3:
                return
            target[...] = before

    return change


def _on_other_run(alter_plan=None, alter_data=None):
    def change(run, step):
        plan = alter_plan(run._plan) if alter_plan else run._plan
        data = alter_data(run._data, run, step) if alter_data else run._data
        other = TrainingRun(plan, data)
        put_back(other, run.step, run.state())
        other.advance_to(step)
        put_back(run, step, other.state())

    return change


def changed_point(generator):
    """Change one byte of one data point that the segment shows."""

    def alter(data, run, step):
        rows = np.concatenate(segment_rows(run._plan, len(data), run.step, step))
        row = rows[generator.integers(len(rows))]
        inputs = data.inputs.copy()
        inputs[row].reshape(-1).view(np.uint8)[generator.integers(inputs[row].nbytes)] ^= np.uint8(
            1 << generator.integers(8)
        )
        return DataSet(inputs, data.labels)

    return _on_other_run(alter_data=alter)


def changed_seed(generator):
    """Draw one segment's batches from another seed."""
    return _on_other_run(alter_plan=lambda plan: replace(plan, work_id=generator.bytes(32)))


def changed_order(generator):
    """Exchange two rows of one segment's batches: the data are permuted."""

    def alter(data, run, step):
        order = np.arange(len(data))
        rows = segment_rows(run._plan, len(data), run.step, step)
        one, two = generator.integers(len(rows)), generator.integers(len(data))
        place = rows[one][generator.integers(len(rows[one]))]
        while two in rows[one]:
            two = generator.integers(len(data))
        order[[place, two]] = order[[two, place]]
        return DataSet(data.inputs[order], data.labels[order])

    return _on_other_run(alter_data=alter)


def changed_choice(generator):
    """Take one segment's steps with another hyper-parameter than the one that is declared."""

    def alter(plan):
        chosen = plan.hyper_parameters
        name = ("learning_rate_millionths", "momentum_millionths")[generator.integers(2)]
        return replace(plan, hyper_parameters=replace(chosen, **{name: getattr(chosen, name) + 1_000}))

    return _on_other_run(alter_plan=alter)


CHANGES = {
    "checkpoint": changed_checkpoint,
    "data point": changed_point,
    "seed": changed_seed,
    "order": changed_order,
    "hyper-parameter": changed_choice,
}
