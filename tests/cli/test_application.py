import resource
import subprocess
import sys

import pytest

from tests.cli.samples import exit_code, spoken

HEAVY = ("torch", "eth", "web3", "numpy", "sklearn", "aiohttp")
VERBS = (
    "up",
    "node run",
    "node init",
    "miner",
    "audit",
    "task publish",
    "task list",
    "task show",
    "model download",
    "chain show",
    "chain verify",
    "wallet new",
    "wallet list",
    "wallet balance",
    "wallet send",
    "wallet export",
    "wallet bond deposit",
    "wallet bond unbond",
    "wallet bond release",
    "wallet bond show",
    "explain",
    "bench",
    "doctor",
    "why block",
    "why reward",
    "why idle",
)


def _loaded(code: str) -> tuple[list[str], float]:
    program = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nsys.stderr.write('\\n'.join(sys.modules))"
    before = _processor_seconds()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return ended.stderr.splitlines(), _processor_seconds() - before


def _processor_seconds() -> float:
    """What ended children took of a processor: the wall clock of a shared machine says little."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize(
    "code", ["import learnchain.cli", "import learnchain.cli as c; sys.argv = ['l', '--help']; c.main()"]
)
def test_heavy_packages_stay_out_of_the_way(code):
    modules, _ = _loaded(code)
    assert "learnchain.cli" in modules
    assert [each for each in HEAVY if each in modules] == []


def test_import_is_quick():
    # Compared with its own libraries in the same run: a shared machine makes both slower.
    libraries = "import asyncio, importlib.metadata, typer, rich.progress, rich.table"
    pairs = [(_loaded("import learnchain.cli.application")[1], _loaded(libraries)[1]) for _ in range(3)]
    assert min(own for own, _ in pairs) < 2.5 * max(theirs for _, theirs in pairs)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_json(verb, capsys):
    assert exit_code(*verb.split(), "--help") == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("up", "--nope"), ("chain", "show", "x"), ("nonsense",), ("task", "show")])
def test_wrong_usage_is_an_envelope_too(arguments, capsys):
    code, envelope = spoken(capsys, *arguments)
    assert (code, envelope["error"]["reason"]) == (2, "usage")


def test_without_a_verb_the_help_is_shown(capsys):
    assert exit_code() == 2
    assert "chain" in capsys.readouterr().out
