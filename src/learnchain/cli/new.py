"""`learnchain new`: start a protocol of one's own inside a checkout."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from learnchain.cli.answers import JsonOption, answer, page
from learnchain.primitives.rejection import Unavailable

application = typer.Typer(help="Start something new in a checkout of this project.", no_args_is_help=True)
_FILL = (
    "from pathlib import Path; from learnchain.testing.vectors import fill; "
    "from learnchain.testing.documents import write_documents; fill(Path('vectors')); write_documents(Path('docs'))"
)


@application.callback()
def new() -> None:
    """Start something new in a checkout of this project."""


@application.command("engine")
def engine(
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits and underscores.")],
    *,
    like: Annotated[str, typer.Option(help="The engine to copy: podl, dlbc, pole or proof_of_work.")] = "podl",
    root: Annotated[Path, typer.Option(file_okay=False, help="The checkout.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Copy an engine's folder with tests and vectors, and register the copy: the start of a fifth protocol."""

    def work() -> dict[str, Any]:
        from learnchain.testing.new_engine import planned_engine

        place = root.resolve()
        copy = planned_engine(place, name, like)
        copy.write()
        try:
            _tidied(place, [str(each) for each in copy.written if each.suffix == ".py"])
            _fill(place)
        except BaseException:
            # An interrupted or failed start leaves nothing behind.
            copy.undo()
            raise
        files = [str(each.relative_to(place)) for each in copy.written]
        return {"engine": name, "like": like, "files": files, "vectors": f"vectors/{name}"}

    answer(as_json, work, _show)


def _fill(root: Path) -> None:
    """Write vectors and documents anew by the checkout's own code, in a process that loads it."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, "-c", _FILL], cwd=root, env=environment, check=False, stdout=subprocess.DEVNULL
    )
    if done.returncode:
        raise Unavailable("vectors of the copy: writing them failed, all was taken back; the trace stands above")


def _tidied(root: Path, files: list[str]) -> None:
    """Sort imports and break lines anew where the developers' tools are here: a longer name makes longer lines."""
    if importlib.util.find_spec("ruff") is None:
        return
    for verb in (("check", "--fix", "--quiet", "--select", "I"), ("format", "--quiet")):
        subprocess.run([sys.executable, "-m", "ruff", *verb, *files], cwd=root, check=False, stdout=subprocess.DEVNULL)


def _show(data: dict[str, Any]) -> None:
    console = page()
    for each in data["files"]:
        console.print(each, markup=False)
    console.print(f"vectors of the copy: {data['vectors']}; docs/engines.md has a column more", markup=False)
    console.print(f"next: change an answer in src/learnchain/rules/{data['engine']}/rules.py, then", markup=False)
    console.print(f"  pytest tests/rules/{data['engine']}   learnchain up --consensus {data['engine']}", markup=False)
    console.print(f"  learnchain lab compare --engine {data['like']} --engine {data['engine']}", markup=False)
