"""Task files: what data they may name, how rows are drawn, and how long the phases of a local network become."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnchain.engines.registry import find_engine
from learnchain.learning.sources.store import DataStore
from learnchain.node.local_network import LOCAL_PHASES, LocalPlan, local_needs
from learnchain.protocol.task_specification import MAXIMUM_SPECIFICATION_BYTES, DataPart, Metric, encode_specification
from learnchain.rejection import Rejected, RejectionReason
from learnchain.tasks.task_file import BUILT_IN, TaskDraft, read_task_file, task_draft


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DataStore:
    made = DataStore(tmp_path_factory.mktemp("data"))
    made.generate("idx", "strokes", 1, 50)
    made.generate("mmwhs", "hearts", 1, 10)
    return made


def table(name: str, **data: Any) -> dict[str, Any]:
    return {**BUILT_IN["digits"], "name": "mine", "data": {"source": name, **data}}


def specification_of(draft: TaskDraft) -> Any:
    parts = [
        DataPart(bytes([number]) * 36, bytes([number]) * 32, bytes([number]) * 32, len(each), 1 << 30)
        for number, each in enumerate((draft.training_data, draft.test_data))
    ]
    return draft.specification(*parts)


def reason_of(action: Any, *arguments: Any) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


def test_an_imported_set_keeps_its_published_split(store: DataStore) -> None:
    draft, stored = task_draft(table("strokes"), store), store.load("strokes")
    assert stored.test is not None
    assert np.array_equal(draft.training_data.inputs, stored.training.inputs)
    assert np.array_equal(draft.test_data.inputs, stored.test.inputs)
    manifest = specification_of(draft).data
    assert (manifest.name, manifest.synthetic, manifest.public, manifest.classes) == ("strokes", True, True, 10)


def test_rows_are_cut_by_the_seed(store: DataStore) -> None:
    draft = task_draft(table("strokes", training_rows=30, test_rows=5), store)
    again = task_draft(table("strokes", training_rows=30, test_rows=5), store)
    other = task_draft(table("strokes", training_rows=30, test_rows=5, seed=1), store)
    assert (len(draft.training_data), len(draft.test_data)) == (30, 5)
    assert np.array_equal(draft.training_data.inputs, again.training_data.inputs)
    assert not np.array_equal(draft.training_data.inputs, other.training_data.inputs)


@pytest.mark.parametrize("rows", [{"training_rows": 51}, {"test_rows": 11}, {"training_rows": 0}, {"test_rows": 0}])
def test_more_rows_than_there_are_is_an_argument(store: DataStore, rows: dict[str, int]) -> None:
    assert reason_of(task_draft, table("strokes", **rows), store) is RejectionReason.ARGUMENT_INVALID


def test_a_set_that_is_not_here_is_an_argument(store: DataStore) -> None:
    for name in ("mnist", "../strokes", ""):
        assert reason_of(task_draft, table(name), store) is RejectionReason.ARGUMENT_INVALID


def test_labels_of_every_place_are_counted_by_dice(store: DataStore) -> None:
    chosen = {**table("hearts", test_rows=3), "model": {"preset": "unet3d", "width": 2, "steps": 2}}
    draft = task_draft(chosen, store)
    assert (draft.metric, len(draft.training_data), len(draft.test_data)) == (Metric.DICE, 7, 3)
    specification = specification_of(draft)
    specification.check_numbers()
    specification.check_model_fits()
    assert reason_of(task_draft, {**chosen, "metric": "luck"}, store) is RejectionReason.ARGUMENT_INVALID


@pytest.mark.parametrize("name", ["digits", "iris", "glas-synthetic", "mmwhs-synthetic"])
def test_built_in_tasks_fit_into_their_transaction(name: str, store: DataStore) -> None:
    draft = task_draft(read_task_file(name), store)
    specification = specification_of(draft)
    specification.check_numbers()
    specification.check_model_fits()
    assert len(encode_specification(specification)) <= MAXIMUM_SPECIFICATION_BYTES // 4
    assert specification.data.synthetic == name.endswith("-synthetic")


def test_phases_of_a_local_network_are_those_of_its_longest_task() -> None:
    assert local_needs([BUILT_IN["digits"]]).phases == LOCAL_PHASES
    assert local_needs([BUILT_IN["digits"]]).standing == ()
    needs = local_needs([BUILT_IN["digits"], BUILT_IN["mnist"], BUILT_IN["glas-synthetic"]])
    assert needs.phases.training_milliseconds == 30_000
    assert needs.standing == ("mnist", "glas-synthetic")
    assert needs.evaluation_milliseconds == 3_000


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_task_names_phases_that_a_chain_can_run(name: str) -> None:
    needs = local_needs([BUILT_IN[name]])
    for engine in ("dlbc", "podl"):
        find_engine(engine).build_local(needs.phases, 3).phases.check()
    margins = 2 * (50 + 200 + 200 + needs.evaluation_milliseconds)
    assert needs.phases.judging_milliseconds >= margins
    assert LocalPlan(Path("/nowhere")).phases == LOCAL_PHASES


def test_a_wrong_local_table_is_an_argument() -> None:
    assert reason_of(local_needs, [{"name": "x", "local": {"phases_milliseconds": [1]}}]) is (
        RejectionReason.ARGUMENT_INVALID
    )


def test_a_file_of_another_name_never_becomes_a_standing_task() -> None:
    changed = {**BUILT_IN["mnist"], "required_accuracy": "0"}
    assert local_needs([changed]).standing == ()


WRONG_ENTRIES: tuple[tuple[str, Any, RejectionReason], ...] = (
    *((each, None, RejectionReason.ARGUMENT_INVALID) for each in ("name", "reward_ether", "bond_ether")),
    *((each, None, RejectionReason.ARGUMENT_INVALID) for each in ("required_accuracy", "data", "model", "training")),
    *((f"training.{each}", None, RejectionReason.ARGUMENT_INVALID) for each in ("learning_rate", "batch_size")),
    ("data.source", None, RejectionReason.ARGUMENT_INVALID),
    ("model.preset", None, RejectionReason.ARGUMENT_INVALID),
    ("nonsense", 1, RejectionReason.ARGUMENT_INVALID),
    ("data.trainingrows", 9, RejectionReason.ARGUMENT_INVALID),
    ("training.nonsense", 1, RejectionReason.ARGUMENT_INVALID),
    ("local", "x", RejectionReason.ARGUMENT_INVALID),
    ("name", "", RejectionReason.ARGUMENT_INVALID),
    ("name", 5, RejectionReason.ARGUMENT_INVALID),
    ("name", "a\nb", RejectionReason.ARGUMENT_INVALID),
    ("name", "\x1b]0;title\x07", RejectionReason.ARGUMENT_INVALID),
    ("name", "ü" * 33, RejectionReason.TOO_LARGE),
    ("reward_ether", "0", RejectionReason.REWARD_TOO_LOW),
    ("reward_ether", "abc", RejectionReason.ARGUMENT_INVALID),
    ("reward_ether", True, RejectionReason.ARGUMENT_INVALID),
    ("reward_ether", "1" * 65, RejectionReason.ARGUMENT_INVALID),
    ("reward_ether", "-1", RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("reward_ether", "inf", RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("reward_ether", "1e-19", RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("reward_ether", "1e-999999999", RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("reward_ether", "1e999999999", RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("reward_ether", "1e60", RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("required_accuracy", "1.1", RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("deadline_seconds", 0, RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("deadline_seconds", 10**30, RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("time_limit_seconds", -1, RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("time_limit_seconds", 1.5, RejectionReason.ARGUMENT_INVALID),
    ("metric", "dice", RejectionReason.ARGUMENT_INVALID),
    ("encryption", "rot13", RejectionReason.ARGUMENT_INVALID),
    ("data.test_rows", 1.5, RejectionReason.ARGUMENT_INVALID),
    ("model.hidden", [16] * 1000, RejectionReason.MODEL_TOO_LARGE),
    ("model.classes", 7, RejectionReason.MODEL_SHAPE_MISMATCH),
    ("training.optimiser", "luck", RejectionReason.ARGUMENT_INVALID),
    ("training.learning_rate", "0.1", RejectionReason.ARGUMENT_INVALID),
    ("training.learning_rate", ["0.2", "0.1"], RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("training.learning_rate", ["0", "0"], RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("training.batch_size", [32, 8], RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("training.batch_size", [0, 8], RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
    ("training.batch_size", ["8", "32"], RejectionReason.ARGUMENT_INVALID),
    ("training.checkpoint_interval_steps", 0, RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
)


@pytest.mark.parametrize(("path", "value", "reason"), WRONG_ENTRIES)
def test_each_wrong_entry_is_refused_before_anything_is_sent(path: str, value: Any, reason: RejectionReason) -> None:
    """What the chain would never select must not reach the escrow: the coins would lie there until the deadline."""
    changed = copy.deepcopy(BUILT_IN["iris"])
    *places, name = path.split(".")
    place = changed
    for each in places:
        place = place[each]
    if value is None:
        del place[name]
    else:
        place[name] = value
    task_draft(BUILT_IN["iris"])
    with pytest.raises(Rejected) as caught:
        task_draft(changed)
    assert caught.value.reason is reason
    if reason is RejectionReason.ARGUMENT_INVALID:
        assert path in caught.value.detail


@pytest.mark.parametrize("table_", [None, 5, [], "text", {}, {"data": 5}])
def test_what_is_no_table_is_an_argument(table_: Any) -> None:
    assert reason_of(task_draft, table_) is RejectionReason.ARGUMENT_INVALID


@pytest.mark.parametrize("name", ["digits", "iris", "glas-synthetic", "mmwhs-synthetic", "digits-encrypted"])
def test_a_draft_expects_the_specification_that_is_posted(name: str) -> None:
    """Only CIDs, roots and key hashes differ: what is admitted before encryption is admitted after it."""
    draft = task_draft(BUILT_IN[name])
    expected = draft.build_expected_specification()
    assert len(encode_specification(expected)) <= MAXIMUM_SPECIFICATION_BYTES
    assert [each.rows for each in expected.data.test_sets] == [len(draft.test_data)]
    assert (expected.model, expected.training) == (draft.model, draft.training)
