"""`learnchain model`: take home what was trained."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from learnchain.cli.output import LOCAL_DIRECTORY, DataDirectoryOption, JsonOption, RpcOption, page, run_verb
from learnchain.cli.rpc import NodeClient, client_for
from learnchain.rejection import Rejected, RejectionReason

application = typer.Typer(help="Download trained models.", no_args_is_help=True)
MAXIMUM_MODEL_BYTES = 16 << 30
_INPUTS = "It takes float32 samples; data that are stored as bytes (pictures, sound) are divided by 256 first."
_MAPPED = "It was trained behind a mapping layer: it takes that layer's outputs, not the rows."


@application.command("download")
def download(
    which: Annotated[str, typer.Argument(metavar="HEIGHT|CID", help="A block's height, or a model's CID.")],
    out: Annotated[Path, typer.Option(help="The file to write (safetensors); an existing one is not overwritten.")],
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """Download a model in chunks; the file appears only if its bytes hash to the CID that the block names."""
    run_verb(as_json, lambda: _download(client_for(rpc, data_dir), which, out, as_json), _show)


@application.command("show")
def show(
    height: Annotated[int, typer.Argument(metavar="HEIGHT", min=1, help="The height of a trained block.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the program here; an existing file is not overwritten.")
    ] = None,
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """Write a model's layers as a Python program that loads its weights with torch and safetensors alone."""
    run_verb(as_json, lambda: _program(client_for(rpc, data_dir), height, out), _show_program)


def _program(client: NodeClient, height: int, out: Path | None) -> dict[str, Any]:
    # Loaded when needed: the modules of torch write themselves.
    from learnchain.learning.model import torch_source
    from learnchain.protocol.task_specification import decode_specification

    if out is not None and out.exists():
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{out} exists; choose another --out")
    name, facts = _find_model(client, str(height))
    task = client.call("learn_task", facts["task"]["id"])
    try:
        specification = decode_specification(bytes.fromhex(task["specification"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Rejected(RejectionReason.MALFORMED, "the node gave no specification for the task") from error
    accuracy = facts["accuracy"]
    title = f"Model of block {height}, task {specification.name}: {accuracy['correct']} of {accuracy['total']} right."
    note = f"{_INPUTS}\n{_MAPPED if facts['mapping'] else ''}".strip()
    source = torch_source(specification.model, title, note)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(source, encoding="utf-8")
    return {"file": None if out is None else str(out), "cid": name, "source": source, **facts}


def _show_program(data: dict[str, Any]) -> None:
    if data["file"] is None:
        sys.stdout.write(data["source"])
    else:
        page().print(f"{data['file']}: loads {data['cid']}", soft_wrap=True)


def _download(client: NodeClient, which: str, out: Path, quiet: bool) -> dict[str, Any]:
    if out.exists():
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{out} exists; choose another --out")
    name, facts = _find_model(client, which)
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=out.parent, prefix=out.name, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file, Progress(disable=quiet, transient=True) as progress:
            size_bytes = _write_chunks(client, name, file.write, progress)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(out)
    finally:
        Path(partial).unlink(missing_ok=True)
    return {"file": str(out), "size_bytes": size_bytes, "cid": name, **facts}


def _find_model(client: NodeClient, which: str) -> tuple[str, dict[str, Any]]:
    if not which.isdecimal():
        return which, {}
    view = client.call("learn_block", int(which))
    if not view["trained"]:
        why = f"is empty (no {view['missed']} in time)" if view["empty"] else "was won by hashing"
        detail = f"block {which} {why}: it carries no model"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    facts = {key: view[key] for key in ("height", "task", "winner", "accuracy", "mapping")}
    return view["model"], facts


def _write_chunks(client: NodeClient, name: str, write: Any, progress: Progress) -> int:
    """Write the chunks and hash them on the way; refuse what is not the named content."""
    from learnchain.encoding.content_id import UNIXFS_V1_2025, FileBuilder, cid_from_text, cid_text

    cid = cid_from_text(name)
    builder, pending, received = FileBuilder(), b"", 0
    task = progress.add_task("downloading", total=None)
    while True:
        answered = client.call("learn_blob", name, received)
        chunk, size = bytes.fromhex(answered["data"]), int(answered["size"])
        if size > MAXIMUM_MODEL_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, f"the node names {size} bytes")
        write(chunk)
        received += len(chunk)
        progress.update(task, total=size, completed=received)
        pending += chunk
        while len(pending) >= UNIXFS_V1_2025.leaf_bytes:
            builder.add(pending[: UNIXFS_V1_2025.leaf_bytes])
            pending = pending[UNIXFS_V1_2025.leaf_bytes :]
        if not chunk or received >= size:
            break
    if pending:
        builder.add(pending)
    builder.finish()
    if builder.root.cid != cid:
        raise Rejected(RejectionReason.WRONG_HASH, f"the node sent {cid_text(builder.root.cid)} instead of {name}")
    return received


def _show(data: dict[str, Any]) -> None:
    page().print(f"{data['file']}: {data['size_bytes']:,} bytes, verified as {data['cid']}", soft_wrap=True)
