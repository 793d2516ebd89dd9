"""Every citation of a rule or a reading resolves, and nothing cites a document that is not in the repository."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAW = ROOT / "docs" / "rules.md"
PLACES = ("src", "tests", "docs", "benchmarks", "reproduce", "examples", "tools", "conformance", "contracts")
SUFFIXES = {".md", ".py", ".sol", ".toml"}
WITHOUT_A_PLACE: frozenset[str] = frozenset()
"""Rules that no single line of code carries out, so that none cites them."""
NEVER_GIVEN = frozenset({"DLBC-R5", "POLE-R11", "POLE-R12"})
"""Numbers of readings that went into others or are about experiments alone; a text may say so."""
RULE_HEADING = re.compile(r"^### ([A-Z]+-[0-9]+) \S.*$", re.MULTILINE)
DEFINITION = re.compile(r"^( *)(?:async )?(?:(def|class) (\w+)|([A-Z][A-Z_]+)(?:: [^=\n]+)? =)", re.MULTILINE)
ELSEWHERE = (
    r"\bDESIGN\b",
    r"first-design",
    r"\b[Tt]he round(, |'s )rules? [0-9]+",
    r"\([^()\n]*\brules? [0-9]+\)",
    r"house\.md",
    r"shared/notes",
)
"""How a text would name a design, a review or a list of rules that lies outside the repository."""


@cache
def texts() -> dict[str, str]:
    """Return every text of ours by its path, but this file: it has to spell what it forbids."""
    files = [*ROOT.glob("*.md"), ROOT / "pyproject.toml"]
    for place in PLACES:
        files += [each for each in (ROOT / place).rglob("*") if each.suffix in SUFFIXES and each.is_file()]
    own = Path(__file__).resolve()
    kept = (each for each in files if each.resolve() != own and "node_modules" not in each.parts)
    return {str(each.relative_to(ROOT)): each.read_text() for each in sorted(kept)}


@cache
def rules() -> dict[str, str]:
    """Return the text of every rule by its name."""
    text = LAW.read_text()
    headings = list(RULE_HEADING.finditer(text))
    ends = [*(each.start() for each in headings[1:]), len(text)]
    return {each[1]: text[each.end() : end] for each, end in zip(headings, ends, strict=True)}


@cache
def rule_pattern() -> re.Pattern[str]:
    prefixes = sorted({name.rpartition("-")[0] for name in rules()})
    return re.compile(rf"(?<![A-Z0-9-])(?:{'|'.join(prefixes)})-[0-9]+\b")


@cache
def source_texts() -> tuple[str, ...]:
    ours = (each for each in texts().items() if each[0].startswith(("src/", "conformance/")))
    return tuple(text for path, text in ours if path.endswith(".py"))


@cache
def readings() -> frozenset[str]:
    """Return the identifiers of all interpretations: the first argument of every `Interpretation(...)` in the code."""
    found: set[str] = set()
    for text in source_texts():
        for node in ast.walk(ast.parse(text)) if "Interpretation(" in text else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Interpretation":
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    found.add(first.value)
    return frozenset(found)


def cited_readings(text: str) -> set[str]:
    """Return what a text cites: `DLBC-R7`, and what follows in a list such as `POLE-R7, R17 and R22`."""
    prefixes = sorted({each.rpartition("-R")[0] for each in readings()})
    found: set[str] = set()
    for match in re.finditer(rf"(?<![A-Z-])({'|'.join(prefixes)})-(R[0-9]+(?:(?:, | and )R[0-9]+\b)*)", text):
        found |= {f"{match[1]}-{number}" for number in re.findall(r"R[0-9]+", match[2])}
    return found


@cache
def defined_names() -> frozenset[str]:
    """Return the names of all functions, classes and module constants, methods also as `Class.method`."""
    found: set[str] = set()
    for text in source_texts():
        owner = ""
        for indent, kind, name, constant in DEFINITION.findall(text):
            owner = name if kind == "class" and not indent else owner if indent else ""
            found |= {name or constant, f"{owner}.{name}"}
    return frozenset(found)


@cache
def reasons() -> frozenset[str]:
    """Return the values of the public enum `RejectionReason`."""
    text = next(each for each in source_texts() if "class RejectionReason(" in each)
    body = text[text.index("class RejectionReason(") : text.index("class Rejected(")]
    return frozenset(re.findall(r'^    [A-Z_]+ = "(\w+)"$', body, re.MULTILINE))


def paragraph(text: str, label: str) -> str:
    """Return the item of a rule that begins with a label; it ends with the next item or an empty line."""
    match = re.search(rf"^- {label}: (.*?)(?=^- |\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return match[1] if match else ""


def test_rules_are_numbered_without_gaps_or_repetition() -> None:
    names = RULE_HEADING.findall(LAW.read_text())
    assert len(names) == len(set(names))
    for prefix in {name.rpartition("-")[0] for name in names}:
        numbers = [int(name.rpartition("-")[2]) for name in names if name.startswith(f"{prefix}-")]
        assert numbers == list(range(1, len(numbers) + 1)), prefix


def test_every_cited_rule_stands_in_the_law() -> None:
    cited = {(path, name) for path, text in texts().items() for name in rule_pattern().findall(text)}
    assert cited
    assert sorted((path, name) for path, name in cited if name not in rules()) == []


def test_every_rule_is_cited_where_it_is_carried_out() -> None:
    source = "\n".join(text for path, text in texts().items() if path.startswith("src/"))
    cited = set(rule_pattern().findall(source))
    assert sorted(set(rules()) - cited - WITHOUT_A_PLACE) == []
    assert sorted(WITHOUT_A_PLACE & cited) == [], "a rule that is cited has a place"


def test_every_cited_reading_is_one_that_an_engine_defines() -> None:
    assert {"DLBC-R14", "PODL-R10", "POLE-R17"} <= readings()
    cited = {(path, name) for path, text in texts().items() for name in cited_readings(text)}
    assert sorted((path, name) for path, name in cited if name not in readings() | NEVER_GIVEN) == []
    assert NEVER_GIVEN.isdisjoint(readings())


def test_nothing_cites_a_document_outside_the_repository() -> None:
    found = [
        f"{path}: {match[0]}"
        for path, text in texts().items()
        for pattern in ELSEWHERE
        for match in re.finditer(pattern, text)
    ]
    assert found == []


def test_every_rule_says_why_and_where() -> None:
    for name, text in rules().items():
        assert paragraph(text, "Why"), name
        assert paragraph(text, "Where"), name


def test_what_a_rule_names_exists() -> None:
    missing: list[str] = []
    for name, text in rules().items():
        for where in re.findall(r"`([^`]+)`", paragraph(text, "Where")):
            is_file = "/" in where
            present = where in texts() or f"src/learnchain/{where}" in texts() if is_file else where in defined_names()
            missing += [] if present else [f"{name}: {where}"]
        refused = re.findall(r"`([^`]+)`", paragraph(text, "Refused"))
        missing += [f"{name}: reason {each}" for each in refused if each not in reasons()]
    assert missing == []


def test_every_name_in_the_glossary_exists() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    names = {name for text in source_texts() for name in re.findall(r"[A-Za-z_][A-Za-z_0-9]*", text)}
    missing: list[str] = []
    for quoted in re.findall(r"`([^`]+)`", glossary):
        is_path = "/" in quoted or quoted.endswith(".py")
        present = resolves(quoted) if is_path else names.issuperset(re.findall(r"\w+", quoted))
        missing += [] if present else [quoted]
    assert missing == []


def resolves(path: str, folder: str = "") -> bool:
    """Return whether a path names a file or folder: from its own folder, the root, the package or the tests."""
    roots = (ROOT / folder, ROOT, ROOT / "src" / "learnchain", ROOT / "packages" / "conformance")
    return any((root / path).exists() for root in roots)


def test_links_and_paths_in_documents_resolve() -> None:
    broken: list[str] = []
    for name, text in texts().items():
        if not name.endswith(".md"):
            continue
        folder = str(Path(name).parent)
        links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)", text)
        paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|sol|toml))`", text)
        broken += [f"{name}: {link}" for link in links if not (ROOT / folder / link).exists()]
        broken += [f"{name}: {path}" for path in paths if not resolves(path, folder)]
    assert broken == []
