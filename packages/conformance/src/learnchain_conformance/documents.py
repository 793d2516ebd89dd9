"""Write the pages that follow from the code: messages, reasons, engines side by side; a test says when they are old."""

import ast
import inspect
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from learnchain import rejection
from learnchain.encoding.codec import Bound, Exact
from learnchain.engines.contract import STEPS, Rules
from learnchain.protocol import audit_messages, messages
from learnchain.protocol.citations import Interpretation
from learnchain_conformance.engine_scenarios import find_scenario, shipped_engines
from learnchain_conformance.vector_json import unwrap_annotation
from learnchain_conformance.vectors import list_parameters, list_steps

SCENARIOS = tuple(map(find_scenario, shipped_engines()))
"""Every engine of the project, as tests and vectors play it."""


ENGINES: tuple[tuple[type, tuple[Interpretation, ...]], ...] = tuple(
    (type(play.rules), play.interpretations) for play in SCENARIOS
)
"""Every engine with its readings."""


SIGNERS = {
    "KeyRelease": "publisher",
    "Commitment": "miner",
    "Release": "publisher",
    "Reveal": "miner",
    "Block": "winner",
    "EmptyBlock": "proposer",
    "Evidence": "reporter",
    "AuditCommitment": "auditor",
    "AuditReport": "auditor",
    "Challenge": "challenger",
    "StateDisclosure": "respondent",
}


MESSAGES = [
    "Task",
    "Escrow",
    "KeyRelease",
    "TrainingRecord",
    "TrainedModel",
    "Commitment",
    "Release",
    "ReleaseAnnouncement",
    "Reveal",
    "VerdictEntry",
    "Verdict",
    "Block",
    "EmptyBlock",
    "Evidence",
    "AuditCommitment",
    "AuditedSegment",
    "AuditReport",
    "Challenge",
    "StateLeaf",
    "SegmentOpening",
    "StateDisclosure",
    "ChallengeResponse",
    "Head",
    "Payout",
]
"""The nouns of a height, in the order in which they appear."""


_PAGES = (messages, audit_messages)


_NOTE = "<!-- Written by learnchain_conformance.documents; change the code, then write it anew. -->\n\n"


_ROUND = """# Messages

One height, from the parent's end to the next block. Everything is RLP over the fields below, in this order;
integers are unsigned and at most 32 bytes, fixed byte strings say so, every other length has the bound in the
table. A decoder refuses any second way to write the same noun.

1. The engine selects a task from the list that the parent records. Its publisher signs `KeyRelease`; miners
   decrypt and train.
2. Each miner signs one `Commitment`: `digest = H("commitment", work_id, model_cid, trace_root, payload_hash,
   payload_cid, salt)`, `work_id = H("work", chain_id, parent, task_id, miner)`, `trace_root` the hash of its
   `TrainingRecord`.
3. The publisher closes the list: `Release` signs the Merkle root over all commitment hashes in rising order
   and opens the test set. It travels with the list as `ReleaseAnnouncement`. Two releases for one height are
   slashable.
4. Miners sign a `Reveal`: it opens the commitment and claims an exact count. Only the claim is not bound by
   the commitment.
5. All nodes recompute the `Verdict`, highest claim first, and stop at the first honest one.
6. The winner signs a `Block` of key, list, release, its reveal and the verdict. After a missed deadline and
   one window anybody may sign an `EmptyBlock` of weight 0 instead; the lowest `H("empty", randao, proposer)`
   wins.
   What one engine alone adds to a message stands in the message's `engine`: canonical bytes of a noun of the
   engine's own (`parts.py` in its folder), empty in every other engine.
7. The next payload carries the block's `Payout`s as withdrawals and `keccak(settlement_root, block_hash)` as
   parent beacon root.
8. Whoever sees a rule broken in signed words, or in training that does not follow from its trace, signs `Evidence`
   about a height that the chain still remembers; later blocks carry it. The offender's bond, deposited or kept back
   from its reward, goes a quarter to the reporter and half to those it harmed; the rest is burned. What is audited of
   block n follows from `H("audit-seed", chain_id, block, release key and winner's commitment of each of the next
   three trained blocks)`.
9. With that seed every auditor has segments of its own, `H("audit-own", seed, auditor)`; a quarter of them start from
   a state that the same seed corrupts. It signs `AuditCommitment` over `H("audit-report", its report unsigned)` in
   time for one of the next three blocks and opens it with `AuditReport` for one of the three after. The fee is kept
   back as long as evidence against the report counts. Both sides name their reproducibility class, and only auditors
   of the winner's class are matched with it.
10. Whoever claims to have trained a segment, winner or auditor, can be asked for its steps: a block of either kind
   carries the `Challenge`, one of the next `response_blocks` the `ChallengeResponse`, whose files every node fetches
   before it admits the block. The first block after that slashes whoever kept silent. Steps that no honest machine
   takes are proven by `Evidence`; if nobody does within `proof_blocks`, the accuser pays the accused. Empty blocks
   carry both messages and count as heights.

`H(tag, parts...)` is SHA-256 over `learnchain/1/`, the tag, a zero byte and each part after its length in
eight bytes. A noun's hash is `H(<name>, bytes)` and covers its signature. Signed nouns end in `signature`: 65
bytes r, s, recovery bit, secp256k1, low s, over `H(sign/<name>, bytes with 65 zero bytes as signature)`. A
block travels and is stored after one byte: 1 for `Block`, 0 for `EmptyBlock`. `protocol/vectors/` in the package
holds one of each, `engines/dlbc/vectors/height/` and its sisters walk whole heights.
"""


def write_documents(directory: Path) -> tuple[Path, ...]:
    """Write all generated pages into a directory; return their paths."""
    pages = {"messages.md": messages_page(), "reasons.md": reasons_page(), "engines.md": engines_page()}
    pages["steps.md"] = steps_page()
    for name, text in pages.items():
        (directory / name).write_text(text)
    return tuple(directory / name for name in pages)


def messages_page() -> str:
    """Return the page of the round and its nouns."""
    parts = [_NOTE + _ROUND]
    for name in MESSAGES:
        kind = next(getattr(page, name) for page in _PAGES if hasattr(page, name))
        signer = f" Signed by the {SIGNERS[name]}." if name in SIGNERS else ""
        rows = [f"| `{field}` | {shape} |" for field, shape in _fields(kind)]
        parts.append(
            f"\n## {name}\n\n{first_line(kind)}{signer}\n\n| field | bytes |\n|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "".join(parts)


def reasons_page() -> str:
    """Return the page of every rejection reason, in the groups of its enumeration."""
    source = inspect.getsource(rejection.RejectionReason)
    body = ast.parse(source).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError("the reasons are no class")
    lines = source.splitlines()
    parts = [_NOTE + "# Reasons\n\nWhat `Rejected` carries: in answers of interfaces, logs and vectors.\n"]
    for member, text in zip(body.body, body.body[1:], strict=False):
        if not isinstance(member, ast.Assign) or not isinstance(member.targets[0], ast.Name):
            continue
        above = lines[member.lineno - 2].strip()
        if above.startswith("# "):
            parts.append(f"\n## {above[2:].capitalize()}\n\n| reason | meaning |\n|---|---|\n")
        reason = rejection.RejectionReason[member.targets[0].id]
        parts.append(f"| `{reason.value}` | {_text_of(text)} |\n")
    return "".join(parts)


def engines_page() -> str:
    """Return the page that lays the engines' ten answers side by side, with their readings."""
    names = [engine.__name__ for engine, _ in ENGINES]
    parts = [_NOTE + "# Engines side by side\n\nWhat each is, the ten questions, and what each paper answers.\n\n"]
    parts.append("| step | question | " + " | ".join(names) + " |\n|---|---|" + "---|" * len(names) + "\n")
    parts.append("| | what it does | " + " | ".join(first_line(engine) for engine, _ in ENGINES) + " |\n")
    for number, step in enumerate(STEPS, start=1):
        answers = " | ".join(first_line(getattr(engine, step)) for engine, _ in ENGINES)
        parts.append(f"| {number} | `{step}`: {first_line(getattr(Rules, step))} | {answers} |\n")
    for play in SCENARIOS:
        parts.append(f"\n## Readings of {type(play.rules).__name__}\n\n")
        parts.append(f"Vectors are in `src/learnchain/engines/{play.rules.name}/vectors/`.\n\n")
        parts.append("| | the paper | we do | because | vector |\n|---|---|---|---|---|\n")
        for each in play.interpretations:
            row = (each.identifier, each.paper_says, each.we_do, each.because, f"`{each.vector}`")
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n")
    return "".join(parts)


def steps_page() -> str:
    """Return the page of every step that a vector may name: what it is given, what it answers."""
    parts = [
        _NOTE + "# Steps of the vectors\n\nHow a vector is read is in [vectors.md](vectors.md). `round` and `message` "
    ]
    parts.append("are described there.\n")
    headings = [("Of all folders", list_steps(None)), ("The ten of every engine", _ten_steps())]
    for play in SCENARIOS:
        own = {name: each for name, each in list_steps(play).items() if not any(name in known for _, known in headings)}
        headings.append((f"Of `{play.rules.name}`, beside the ten", own))
    for heading, steps in headings:
        if steps:
            parts.append(f"\n## {heading}\n\n| step | given | answer | what it decides |\n|---|---|---|---|\n")
        for name, function in steps.items():
            hints = list_parameters(function)
            given = ", ".join(f"`{each}`: {_type(hint)}" for each, hint in hints.items() if each != "return")
            parts.append(f"| `{name}` | {given} | {_type(hints['return'])} | {first_line(function)} |\n")
    return "".join(parts)


def _ten_steps() -> dict[str, Any]:
    return {step: getattr(Rules, step) for step in STEPS}


def _type(annotation: Any) -> str:
    """Say what an argument is; its bounds are in the page of messages."""
    kind, arguments = unwrap_annotation(annotation)
    named = [_type(each) for each in arguments if each not in (NoneType, Ellipsis)]
    if kind is Union:
        return " or ".join([*named, *(["nothing"] if NoneType in arguments else [])])
    if kind is tuple:
        return f"list of {' and '.join(dict.fromkeys(named))}"
    plain = {bytes: "bytes", int: "integer", str: "text", NoneType: "nothing", Decimal: "decimal", Fraction: "fraction"}
    return plain.get(kind) or f"`{kind.__name__}`"


def first_line(thing: Any) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(thing) or "").split("\n", maxsplit=1)[0]


def _fields(kind: type) -> list[tuple[str, str]]:
    hints = get_type_hints(kind, include_extras=True)
    return [(each.name, _shape(hints[each.name])) for each in fields(kind)]  # type: ignore[arg-type]


def _shape(annotation: Any) -> str:
    """Say in words what a field holds and how long it may be."""
    limit = None
    if get_origin(annotation) is Annotated:
        annotation, limit = get_args(annotation)[:2]
    most = f", at most {limit.maximum}" if isinstance(limit, Bound) else ""
    if annotation is bytes:
        return f"{limit.length} bytes" if isinstance(limit, Exact) else f"bytes{most}"
    if get_origin(annotation) is tuple:
        return f"list of {_shape(get_args(annotation)[0])}{most}"
    if annotation is bool:
        return "0 or 1"
    if annotation is int:
        return "integer"
    if annotation is str:
        return f"text{most} bytes"
    if issubclass(annotation, StrEnum):
        return "one of " + ", ".join(f"`{each}`" for each in annotation)
    return f"`{annotation.__name__}`" if is_dataclass(annotation) else str(annotation)


def _text_of(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return str(node.value.value)
    raise TypeError("a reason has no docstring")
