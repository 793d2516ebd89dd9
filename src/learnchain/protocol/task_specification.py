"""What a publisher commissions: model, data, metric, accuracy and the ranges a miner may choose in; pure data.

The canonical bytes of a `TaskSpecification` travel inside the posting transaction, so every full node ranks the
same numbers and no blob can be withheld to disturb the selection.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Annotated

from learnchain.encoding.codec import Accuracy, Bound, Hash32, decode, encode
from learnchain.encoding.cryptography import tagged_hash
from learnchain.protocol.model_specification import ModelSpecification, output_shape
from learnchain.protocol.training_terms import HyperParameters
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_SPECIFICATION_BYTES = 16_384
MAXIMUM_ROWS = 10_000_000
MAXIMUM_DATA_BYTES = 1 << 34
MAXIMUM_CLASSES = 65_536

MAXIMUM_TEST_SETS = 32
"""Blocks that one task may span; their commitments travel inside the posting transaction."""

MAXIMUM_TIME_LIMIT_SECONDS = 7 * 24 * 3_600
MILLION = 1_000_000
Text = Annotated[str, Bound(64)]

Cid = Annotated[bytes, Bound(64)]
"""An IPFS CIDv1 in its binary form."""


class Metric(StrEnum):
    """Choose what is counted on the test set; both are exact counts."""

    ACCURACY = "accuracy"
    DICE = "dice"


class Optimiser(StrEnum):
    """Choose the update rule that a declared run must use."""

    SGD = "sgd"
    ADAM = "adam"


class TrainingMode(StrEnum):
    """Say whether training is replayable and audited, or free and judged by accuracy alone (ROUND-8)."""

    DECLARED = "declared"
    FREE = "free"


class Encryption(StrEnum):
    """Choose what miners get of the training rows once the previous block is known.

    `symmetric` opens the rows themselves; `inner_product` opens only their products with the mapping layer (PoLe 3.4).
    """

    SYMMETRIC = "symmetric"
    INNER_PRODUCT = "inner_product"


@dataclass(frozen=True, slots=True)
class DataPart:
    """Commit to one encrypted file: its CID, the root over its salted plain rows, the hash of its key, its sizes."""

    cid: Cid
    plaintext_root: Hash32
    key_hash: Hash32
    rows: int
    ciphertext_bytes: int


@dataclass(frozen=True, slots=True)
class DataManifest:
    """Name the data set and its parts; `public` data are never called unseen, `synthetic` data always shown so.

    `later_tests` are the fresh test sets of a task over several blocks, one a block after the first (PoDL III-B).
    """

    name: Text
    training: DataPart
    test: DataPart
    sample_shape: Annotated[tuple[int, ...], Bound(4)]
    classes: int
    public: bool
    synthetic: bool
    later_test_sets: Annotated[tuple[DataPart, ...], Bound(MAXIMUM_TEST_SETS - 1)] = ()

    @property
    def test_sets(self) -> tuple[DataPart, ...]:
        """Return the test set of every block that the task may span."""
        return (self.test, *self.later_test_sets)


@dataclass(frozen=True, slots=True)
class Range:
    """Bound an integer that the miner chooses; both ends are allowed."""

    minimum: int
    maximum: int

    def check(self, name: str, value: int) -> None:
        """Refuse a value outside the range."""
        if not self.minimum <= value <= self.maximum:
            detail = f"{name} is {value}, the task allows {self.minimum} to {self.maximum}"
            raise Rejected(RejectionReason.HYPERPARAMETER_OUT_OF_RANGE, detail)


@dataclass(frozen=True, slots=True)
class TrainingRules:
    """Fix the optimiser and bound the hyper-parameters; real numbers are integers in millionths."""

    optimiser: Optimiser
    learning_rate_millionths: Range
    momentum_millionths: Range
    weight_decay_millionths: Range
    batch_size: Range
    checkpoint_interval_steps: int
    mode: TrainingMode

    def check(self, chosen: HyperParameters) -> None:
        """Refuse hyper-parameters outside the task's ranges."""
        self.learning_rate_millionths.check("learning rate", chosen.learning_rate_millionths)
        self.momentum_millionths.check("momentum", chosen.momentum_millionths)
        self.weight_decay_millionths.check("weight decay", chosen.weight_decay_millionths)
        self.batch_size.check("batch size", chosen.batch_size)
        Range(1, 1_000_000).check("epochs", chosen.epochs)


@dataclass(frozen=True, slots=True)
class TaskSpecification:
    """Hold everything a miner must know to train and a full node to judge."""

    name: Text
    model: ModelSpecification
    data: DataManifest
    metric: Metric
    required_numerator: int
    required_denominator: int
    time_limit_seconds: int
    training: TrainingRules
    encryption: Encryption = Encryption.SYMMETRIC

    def check_numbers(self) -> None:
        """Refuse zero, contradictory or huge numbers; the model's graph is checked by `model_specification`."""
        data = self.data
        bounds = (
            ("training rows", data.training.rows, 1, MAXIMUM_ROWS),
            *(("test rows", each.rows, 1, MAXIMUM_ROWS) for each in data.test_sets),
            ("training bytes", data.training.ciphertext_bytes, 1, MAXIMUM_DATA_BYTES),
            *(("test bytes", each.ciphertext_bytes, 1, MAXIMUM_DATA_BYTES) for each in data.test_sets),
            ("classes", data.classes, 2, MAXIMUM_CLASSES),
            ("required accuracy's denominator", self.required_denominator, 1, MILLION),
            ("required accuracy's numerator", self.required_numerator, 0, self.required_denominator),
            ("time limit in seconds", self.time_limit_seconds, 1, MAXIMUM_TIME_LIMIT_SECONDS),
            ("checkpoint interval in steps", self.training.checkpoint_interval_steps, 1, MILLION),
            ("batch size", self.training.batch_size.minimum, 1, self.training.batch_size.maximum),
            ("batch size", self.training.batch_size.maximum, 1, 65_536),
        )
        for name, value, minimum, maximum in bounds:
            if not minimum <= value <= maximum:
                detail = f"{name} is {value}; it must lie between {minimum} and {maximum}"
                raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, detail)
        self._check_ranges()
        self._check_test_sets_fresh()

    def check_claim(self, claim: Accuracy, turn: int = 0) -> None:
        """Refuse a claim that no model can reach: an accuracy counts all rows, Dice at most twice all places.

        The total of a Dice claim depends on the model, so only measuring shows whether it is exact.
        """
        rows = self.data.test_sets[turn].rows
        if self.metric is Metric.ACCURACY:
            if claim.total != rows:
                detail = f"the claim is out of {claim.total}, the test set has {rows} rows"
                raise Rejected(RejectionReason.CLAIM_OUT_OF_RANGE, detail)
            return
        places = rows * prod(self.data.sample_shape[1:])
        if claim.total > 2 * places or claim.correct % 2:
            detail = f"{claim.correct} of {claim.total} is no Dice count over {places} places"
            raise Rejected(RejectionReason.CLAIM_OUT_OF_RANGE, detail)

    def check_model_fits(self) -> None:
        """Refuse a model that does not take the data's samples, or does not give one number for every class."""
        self._check_symmetric()
        self.check_outputs()
        if self.model.input_shape != self.data.sample_shape:
            detail = f"the model takes {self.model.input_shape}, the data have {self.data.sample_shape}"
            raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)

    def check_outputs(self) -> None:
        """Refuse a model that does not give one number for every class, or class and place."""
        places = () if self.metric is Metric.ACCURACY else self.data.sample_shape[1:]
        expected, outputs = (self.data.classes, *places), output_shape(self.model)
        if outputs != expected:
            detail = f"the model gives {outputs}, the task needs {expected}"
            raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)

    def _check_symmetric(self) -> None:
        """Refuse rows that stay encrypted where the model is to take the rows themselves."""
        if self.encryption is not Encryption.SYMMETRIC:
            detail = f"this consensus trains on plain rows; {self.encryption.value} needs a mapping layer"
            raise Rejected(RejectionReason.ENCRYPTION_UNSUITABLE, detail)

    def _check_test_sets_fresh(self) -> None:
        """Refuse test sets that share key or rows with each other or with what miners get to train on."""
        tests, training = self.data.test_sets, self.data.training
        keys, roots = {each.key_hash for each in tests}, {each.plaintext_root for each in tests}
        if training.key_hash in keys or training.plaintext_root in roots:
            raise Rejected(RejectionReason.TEST_SET_TRAINED, "a test set has the key or the rows of the training data")
        if min(len(keys), len(roots)) < len(tests):
            raise Rejected(RejectionReason.TEST_SET_REPEATED, "two test sets of the task have the same key or rows")

    def _check_ranges(self) -> None:
        rules = self.training
        for name, chosen in (
            ("learning rate", rules.learning_rate_millionths),
            ("momentum", rules.momentum_millionths),
            ("weight decay", rules.weight_decay_millionths),
        ):
            if not 0 <= chosen.minimum <= chosen.maximum <= 10 * MILLION:
                detail = f"the range of {name} is {chosen.minimum} to {chosen.maximum} millionths"
                raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, detail)
        if rules.learning_rate_millionths.maximum == 0:
            raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, "the learning rate may only be zero")


def encode_specification(specification: TaskSpecification) -> bytes:
    """Return the canonical bytes that a posting transaction carries."""
    data = encode(specification)
    if len(data) > MAXIMUM_SPECIFICATION_BYTES:
        detail = f"the specification has {len(data)} bytes, {MAXIMUM_SPECIFICATION_BYTES} are allowed"
        raise Rejected(RejectionReason.TOO_LARGE, detail)
    return data


def decode_specification(data: bytes) -> TaskSpecification:
    """Return the specification; refuse bytes above the bound before they are read."""
    if len(data) > MAXIMUM_SPECIFICATION_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a specification of {len(data)} bytes")
    return decode(TaskSpecification, data)


def specification_hash(specification: TaskSpecification) -> Hash32:
    """Return the identity of a specification."""
    return tagged_hash("TaskSpecification", encode_specification(specification))
