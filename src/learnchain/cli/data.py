"""`learnchain data`: import data sets that were published elsewhere, make some up, and say what is here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from learnchain.cli.output import JsonOption, page, run_verb
from learnchain.rejection import Rejected, RejectionReason

if TYPE_CHECKING:
    from learnchain.learning.sources.files import ImportOptions
    from learnchain.learning.sources.store import DataStore


application = typer.Typer(help="Import data sets, make some up, and list them.", no_args_is_help=True)

StoreOption = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where data sets lie; $LEARNCHAIN_DATA or ~/.learnchain/data.", file_okay=False),
]

NameOption = Annotated[str, typer.Option("--name", help="Name of the data set; tasks say data.source = NAME.")]

ShapeOption = Annotated[
    str | None, typer.Option("--shape", help="Bring samples to this shape, as 3x64x96: channels first.")
]


@application.command("import")
def import_data(
    *,
    kind: Annotated[
        str,
        typer.Argument(
            help="mnist, fashion, idx, cifar10, image-classes, spoken-digits, "
            "speech-commands, glas or mmwhs: the layout of the files."
        ),
    ],
    path: Annotated[Path, typer.Argument(help="A folder, a tar archive or a zip archive.")],
    name: NameOption,
    sha256: Annotated[
        list[str] | None, typer.Option("--sha256", help="FILE=DIGEST of a plain file that must match; repeatable.")
    ] = None,
    shape: ShapeOption = None,
    private: Annotated[bool, typer.Option("--private", help="These data are not published anywhere.")] = False,
    data_dir: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a data set in its published layout, check every file, and keep it for tasks."""

    def work() -> dict[str, Any]:
        store = _store(data_dir)
        with _show_progress(f"importing {name}") as progress:
            options = _options(shape, sha256 or (), progress)
            return asdict(store.import_data(kind, path, name, options, public=not private))

    run_verb(as_json, work, _show_one)


@application.command("generate")
def generate(
    *,
    kind: Annotated[
        str,
        typer.Argument(
            help="idx, cifar10, image-classes, spoken-digits, speech-commands, glas or mmwhs: the layout to imitate."
        ),
    ],
    name: NameOption,
    seed: Annotated[int, typer.Option(help="Another seed makes other data.")] = 1,
    rows: Annotated[int, typer.Option(help="Training rows to make up.")] = 200,
    shape: ShapeOption = None,
    data_dir: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a data set up in the layout of a real one; it is marked synthetic wherever it is shown."""

    def work() -> dict[str, Any]:
        store = _store(data_dir)
        with _show_progress(f"making {name} up") as progress:
            return asdict(store.generate(kind, name, seed, rows, _options(shape, (), progress)))

    run_verb(as_json, work, _show_one)


@application.command("list")
def list_data(data_dir: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the data sets that tasks can name."""

    def work() -> dict[str, Any]:
        from learnchain.learning.sources.store import RESERVED

        store = _store(data_dir)
        found = [asdict(store.manifest(each)) for each in store.names()]
        return {"directory": str(store.directory), "data": found, "installed": list(RESERVED)}

    run_verb(as_json, work, _show_list)


@application.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    data_dir: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where a data set came from, its shape and how often each class occurs."""

    def work() -> dict[str, Any]:
        from learnchain.learning.sources.store import label_counts

        stored = _store(data_dir).load(name)
        return {**asdict(stored.manifest), "label_counts": label_counts(stored)}

    run_verb(as_json, work, _show_one)


def _store(directory: Path | None) -> "DataStore":
    from learnchain.learning.sources.store import DataStore

    return DataStore(directory)


def _options(
    shape: str | None, sha256: tuple[str, ...] | list[str], progress: Callable[[int], None]
) -> "ImportOptions":
    from learnchain.learning.sources.files import ImportOptions

    digests: dict[str, str] = {}
    for each in sha256:
        file, _, digest = each.rpartition("=")
        if not file or len(digest) != 64:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"--sha256 {each!r} is not FILE=DIGEST")
        digests[file] = digest
    try:
        sizes = tuple(int(each) for each in shape.split("x")) if shape else ()
    except ValueError as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"--shape {shape!r} is not like 3x64x96") from error
    return ImportOptions(sizes, digests, progress)


@contextmanager
def _show_progress(title: str) -> Iterator[Callable[[int], None]]:
    """Show on standard error how many files were read."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TextColumn("files"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda count: progress.update(task, completed=count)


def _show_list(data: dict[str, Any]) -> None:
    console = page()
    table = Table(box=None, header_style="bold")
    for title in ("name", "kind", "training", "test", "sample", "classes", ""):
        table.add_column(title, no_wrap=True)
    for each in data["data"]:
        rows = (f"{each['training_rows']:,}", f"{each['test_rows']:,}")
        mark = "synthetic" if each["synthetic"] else "public" if each["public"] else "private"
        table.add_row(each["name"], each["kind"], *rows, _sides(each["sample_shape"]), str(len(each["classes"])), mark)
    console.print(f"in {data['directory']}:")
    console.print(table)
    console.print(f"needing no import: {', '.join(data['installed'])}")


def _show_one(data: dict[str, Any]) -> None:
    console = page()
    mark = "SYNTHETIC (made up by this program)" if data["synthetic"] else "public" if data["public"] else "private"
    console.print(f"{data['name']}: {data['kind']}, {mark}")
    split = f"{data['training_rows']:,} rows to train on, {data['test_rows']:,} to test on"
    console.print(split if data["test_rows"] else f"{data['training_rows']:,} rows; each task draws its own test set")
    labels = f", one label a place of {_sides(data['label_shape'])}" if data["label_shape"] else ""
    console.print(f"samples of {_sides(data['sample_shape'])}{labels}")
    counts = data.get("label_counts")
    for index, each in enumerate(data["classes"]):
        console.print(f"  {index} {each}" + (f": {counts[index]:,}" if counts else ""), markup=False)
    for file, digest in data["sources"].items():
        console.print(f"sha256 {digest}  {file}", markup=False, soft_wrap=True)
    if data["licence"]:
        console.print(f"licence: {data['licence']}", markup=False)


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(str(each) for each in shape)
