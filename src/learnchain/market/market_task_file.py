"""Read what an initiator writes when it asks the market for models (TOML): description, sample, terms."""

import tomllib
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np

from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.encoding.content_id import Cid
from learnchain.encoding.cryptography import tagged_hash
from learnchain.learning.data import SOURCES, DataSet, load_data, permutation, select_rows
from learnchain.learning.fused_model import VerifierData
from learnchain.learning.fusion import FusionStrategy, Outputs
from learnchain.learning.sources.store import DataStore
from learnchain.market.terms import BASIS_POINTS, Description, Payment, SampleData, Terms, VoteInterpretation
from learnchain.protocol.model_presets import parse_model_table
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_FILE_BYTES = 1 << 20
_PERCENT = BASIS_POINTS // 100
_NO_CID: Cid = bytes(36)


@dataclass(frozen=True, slots=True, eq=False)
class MarketDraft:
    """Hold a task before its sample has CIDs and its time begins."""

    sample: VerifierData
    open_seconds: int
    terms: Terms
    description: Description

    def open_task(self, now_seconds: int, cids: tuple[Cid, Cid, Cid]) -> tuple[Terms, Description]:
        """Return terms and description of a task that is announced now."""
        closes_seconds = now_seconds + self.open_seconds
        return replace(self.terms, closes_seconds=closes_seconds), replace(self.description, sample=SampleData(*cids))


def read_market_file(path: Path) -> MarketDraft:
    """Read a file; what is wrong with it is named."""
    try:
        if path.stat().st_size > MAXIMUM_FILE_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, f"{path} has more than {MAXIMUM_FILE_BYTES} bytes")
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} is no TOML file: {error}") from error
    return market_draft(table)


def market_draft(table: dict[str, Any]) -> MarketDraft:
    """Return the draft that a table describes."""
    try:
        sample = _sample(table["sample"])
        terms = _terms(table["terms"], len(sample.verification))
        draft = MarketDraft(
            sample, int(table["terms"].get("open_seconds", 86_400)), terms, _description(table, sample.training)
        )
    except (KeyError, TypeError, AttributeError, ValueError, InvalidOperation) as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the task is wrong or incomplete: {error!r}") from error
    draft.terms.check()
    return draft


def rows_of(source: str) -> DataSet:
    """Return the rows that a name stands for: a file, a built-in source, or the training rows of imported data."""
    if source.endswith(".safetensors"):
        if not Path(source).is_file():
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{source} is no file")
        return load_data(Path(source))
    return SOURCES[source]() if source in SOURCES else DataStore().load(source).training


def _sample(table: dict[str, Any]) -> VerifierData:
    rows, counts = rows_of(str(table["source"])), [int(table[f"{part}_rows"]) for part in _PARTS]
    if min(counts) < 1 or sum(counts) > len(rows):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{counts} rows are asked for, the source has {len(rows)}")
    seed = tagged_hash("market/sample", str(table.get("seed", 0)).encode())
    ends = np.cumsum(counts)
    drawn = np.split(permutation("market/sample", seed, len(rows))[: ends[-1]], ends[:-1])
    return VerifierData(*(select_rows(rows, part) for part in drawn))


_PARTS = ("training", "test", "verification")


def _terms(table: dict[str, Any], rows: int) -> Terms:
    return Terms(
        closes_seconds=int(table.get("open_seconds", 86_400)),
        commit_seconds=int(table.get("commit_seconds", 600)),
        reveal_seconds=int(table.get("reveal_seconds", 600)),
        rows=rows,
        fitness=_parts_of(table.get("fitness_percent", 0), _PERCENT),
        tolerance=_parts_of(table.get("tolerance_percent", "0.5"), _PERCENT),
        interpretation=VoteInterpretation[str(table.get("interpretation", "gain")).upper()],
        payment=Payment[str(table.get("payment", "within_tolerance")).upper()],
        models=int(table["models"]),
        committee=int(table["committee"]),
        model_wei=_parts_of(table["model_ether"], WEI_PER_ETHER),
        vote_wei=_parts_of(table["vote_ether"], WEI_PER_ETHER),
        stake_wei=_parts_of(table["stake_ether"], WEI_PER_ETHER),
        bond_wei=_parts_of(table.get("bond_ether", 0), WEI_PER_ETHER),
    )


def _description(table: dict[str, Any], rows: DataSet) -> Description:
    labels = tuple(str(label) for label in table["labels"])
    recommended: tuple[ModelSpecification, ...] = ()
    if "model" in table:
        model = {"input_shape": list(rows.sample_shape), **table["model"]}
        recommended = (parse_model_table({"classes": len(labels), **model} if "preset" in model else model),)
    return Description(
        str(table["title"]),
        str(table.get("data_properties", "")),
        rows.sample_shape,
        labels,
        SampleData(_NO_CID, _NO_CID, _NO_CID),
        recommended,
        _parts_of(table.get("threshold_percent", 0), _PERCENT),
        FusionStrategy(table.get("strategy", FusionStrategy.GRADUAL)).value,
        Outputs(table.get("outputs", Outputs.LITERAL)).value,
        int(table.get("maximum_model_megabytes", 16)) << 20,
    )


def _parts_of(value: Any, factor: int) -> int:
    """Return a decimal number in whole parts; anything finer is refused, not rounded."""
    scaled = Decimal(str(value)) * factor
    if scaled != scaled.to_integral_value() or scaled < 0:
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"{value} is no whole number of 1/{factor}")
    return int(scaled)
