"""Name people, keys and tasks of made-up chains: everything follows from a name, so that vectors never change."""

from dataclasses import replace
from typing import Any

from learnchain.encoding.codec import WEI_PER_ETHER, Address, Hash32
from learnchain.encoding.cryptography import address_of, key_hash, tagged_hash
from learnchain.protocol import task_specification
from learnchain.protocol.messages import Task
from learnchain.protocol.model_presets import mlp
from learnchain.protocol.state import PostedTask

PEOPLE = (
    "escrow",
    "steward",
    *(f"publisher-{number}" for number in range(1, 5)),
    *(f"miner-{number}" for number in range(1, 9)),
    *(f"node-{number}" for number in range(1, 5)),
    "stranger",
)

TEST_ROWS = 100
FAR_DEADLINE_SECONDS = 1_900_000_000


def private_key(name: str) -> bytes:
    """Return the key of a person; anybody can compute it, so it guards nothing."""
    return tagged_hash("sample-person", name.encode())


_ADDRESSES = {name: address_of(private_key(name)) for name in PEOPLE}
_NAMES = {value: name for name, value in _ADDRESSES.items()}


def address(name: str) -> Address:
    """Return the address of one of PEOPLE."""
    return _ADDRESSES[name]


def name_of(address: Address) -> str:
    """Return whose address it is."""
    return _NAMES[address]


def private_key_of(address: Address) -> bytes:
    """Return the key that signs for an address of one of PEOPLE."""
    return private_key(_NAMES[address])


def training_key(specification_name: str) -> Hash32:
    """Return the key of a sample task's training data."""
    key: Hash32 = tagged_hash("sample-training-key", specification_name.encode())
    return key


def release_key(specification_name: str, turn: int = 0) -> Hash32:
    """Return the key of one of a sample task's test sets."""
    later = (bytes([turn]),) if turn else ()
    key: Hash32 = tagged_hash("sample-test-key", specification_name.encode(), *later)
    return key


def build_sample_specification(
    name: str, hidden: tuple[int, ...] = (8,), training_rows: int = 400, tests: int = 1
) -> task_specification.TaskSpecification:
    """Return a small classifier over made-up data that is demanded to be right nine times of ten."""
    return task_specification.TaskSpecification(
        name=name,
        model=mlp((16,), 4, hidden),
        data=task_specification.DataManifest(
            name=f"{name} data",
            training=_part(name, "training", training_key(name), training_rows),
            test=_part(name, "test", release_key(name), TEST_ROWS),
            sample_shape=(16,),
            classes=4,
            public=True,
            synthetic=True,
            later_test_sets=tuple(
                _part(name, f"test {turn}", release_key(name, turn), TEST_ROWS) for turn in range(1, tests)
            ),
        ),
        metric=task_specification.Metric.ACCURACY,
        required_numerator=9,
        required_denominator=10,
        time_limit_seconds=600,
        training=task_specification.TrainingRules(
            optimiser=task_specification.Optimiser.SGD,
            learning_rate_millionths=task_specification.Range(1, 1_000_000),
            momentum_millionths=task_specification.Range(0, 990_000),
            weight_decay_millionths=task_specification.Range(0, 100_000),
            batch_size=task_specification.Range(1, 128),
            checkpoint_interval_steps=10,
            mode=task_specification.TrainingMode.DECLARED,
        ),
    )


def build_sample_task(name: str, reward_wei: int = WEI_PER_ETHER, **changes: Any) -> PostedTask:
    """Return a funded publisher's task whose identifier, keys and data follow from its name."""
    specification = changes.pop("specification", None) or build_sample_specification(name)
    task = Task(
        task_id=tagged_hash("sample-task", name.encode()),
        publisher=address("publisher-1"),
        specification_hash=task_specification.specification_hash(specification),
        reward_wei=reward_wei,
        bond_wei=WEI_PER_ETHER // 100,
        deadline_seconds=FAR_DEADLINE_SECONDS,
        posted_height=1,
        is_standing=False,
    )
    return PostedTask(replace(task, **changes), specification)


def _part(name: str, part: str, key: Hash32, rows: int) -> task_specification.DataPart:
    seed = tagged_hash("sample-data", name.encode(), part.encode())
    return task_specification.DataPart(
        b"\x01\x55" + seed, tagged_hash("rows", seed), key_hash(key), rows, 64 * rows + 104
    )
