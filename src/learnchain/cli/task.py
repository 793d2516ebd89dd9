"""`learnchain task`: commission a model, and see what became of it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from learnchain.cli.output import LOCAL_DIRECTORY, DataDirectoryOption, JsonOption, RpcOption, ether, page, run_verb
from learnchain.cli.rpc import NodeClient, client_for, token_of
from learnchain.rejection import Rejected, RejectionReason

application = typer.Typer(help="Commission models and follow them.", no_args_is_help=True)

PUBLISH_TIMEOUT_SECONDS = 120.0
"""Encrypting the data and adding them to the store takes a while."""


@application.command("publish")
def publish(
    specification: Annotated[str, typer.Argument(metavar="SPEC", help="A TOML file, or the name of a built-in task.")],
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and say what it costs; send nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a task's reward into escrow and its encrypted data on the network, from the node's own account."""
    run_verb(as_json, lambda: _publish(specification, rpc, data_dir, dry_run), _show_posting)


@application.command("list")
def list_tasks(
    rpc: RpcOption = None, data_dir: DataDirectoryOption = LOCAL_DIRECTORY, as_json: JsonOption = False
) -> None:
    """List the tasks: the selected one, those that wait in the order of their scores, and the settled ones."""
    run_verb(as_json, lambda: client_for(rpc, data_dir).call("learn_tasks"), _show_list)


@application.command("show")
def show(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="The task's identifier, or its first digits.")],
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """Show one task: where it stands, its numbers, and what the escrow contract itself says of it."""
    run_verb(as_json, lambda: _one(client_for(rpc, data_dir), identifier), _show_one)


def _publish(specification: str, rpc: str | None, directory: Path, dry_run: bool) -> dict[str, Any]:
    from learnchain.execution.escrow import posting_value_wei
    from learnchain.protocol.model_specification import parameter_count, training_flops_per_sample
    from learnchain.tasks.task_file import read_task_file, task_draft

    table = read_task_file(specification)
    # A wrong file is refused here, with the file at hand, before it is sent anywhere.
    draft = task_draft(table)
    facts = {
        "name": draft.name,
        "reward_wei": draft.reward_wei,
        "bond_wei": draft.bond_wei,
        "value_wei": posting_value_wei(draft.reward_wei, draft.bond_wei),
        "parameters": parameter_count(draft.model),
        "flops_per_epoch": training_flops_per_sample(draft.model) * len(draft.training_data),
        "training_rows": len(draft.training_data),
        "test_rows": len(draft.test_data),
        "test_sets": 1 + len(draft.later_tests),
    }
    if dry_run:
        return {**facts, "transaction": None}
    client = NodeClient(client_for(rpc, directory).url, PUBLISH_TIMEOUT_SECONDS)
    posted = client.call("learn_publishTask", token_of(directory), table)
    return {**facts, **posted}


def _one(client: NodeClient, identifier: str) -> dict[str, Any]:
    from learnchain.cli.observation import contract_status

    wanted = identifier.removeprefix("0x").lower()
    tasks = client.call("learn_tasks")
    places = [("selected", tasks["selected"]), *(("queued", each) for each in tasks["queued_tasks"])]
    places += [("posted", each) for each in tasks["posted_tasks"]]
    places += [("settled", {**each, "id": each["task"]}) for each in tasks["settled"]]
    found = {view["id"]: (state, view) for state, view in places if wanted and view["id"].startswith(wanted)}
    if not found:
        raise Rejected(RejectionReason.TASK_UNKNOWN, f"no task begins with {identifier!r}; `learnchain task list`")
    if len(found) > 1:
        raise Rejected(
            RejectionReason.ARGUMENT_INVALID, f"{len(found)} tasks begin with {identifier!r}; give more digits"
        )
    state, view = next(iter(found.values()))
    report = {**view, "state": state}
    if state == "settled":
        block = client.call("learn_block", view["height"])
        report = {
            **report,
            "name": block["task"]["name"],
            "model": block.get("model"),
            "accuracy": block.get("accuracy"),
        }
    if not view.get("is_standing"):
        report["contract"] = contract_status(client, client.call("learn_network")["escrow"], view["id"])
    return report


def _show_posting(data: dict[str, Any]) -> None:
    console = page()
    console.print(f"task {data['name']}: {data['parameters']:,} parameters, {data['flops_per_epoch']:,} FLOPs an epoch")
    console.print(f"{data['training_rows']:,} rows to train on, {data['test_rows']:,} to test on")
    console.print(f"escrow: {ether(data['value_wei'])} ether (reward {ether(data['reward_wei'])}, bond, claimer's tip)")
    console.print(f"transaction {data['transaction'] or 'not sent (--dry-run)'}", soft_wrap=True)


def _show_list(data: dict[str, Any]) -> None:
    table = Table(box=None, header_style="bold")
    for title in ("task", "name", "state", "reward (ether)", "score", "parameters", "recipient"):
        table.add_column(title, no_wrap=True)
    selected = data["selected"]["id"]
    rows = [
        ("selected", data["selected"]),
        *(("queued", each) for each in data["queued_tasks"] if each["id"] != selected),
    ]
    rows += [("posted", each) for each in data["posted_tasks"]]
    for state, each in rows:
        kind = f"{state}, standing" if each["is_standing"] else state
        numbers = (ether(each["reward_wei"]), each["score"], f"{each['parameters']:,}")
        table.add_row(each["id"][:16], each["name"], kind, *numbers, "")
    for each in data["settled"]:
        table.add_row(each["task"][:16], "", f"{each['outcome']} at {each['height']}", "", "", "", each["recipient"])
    page().print(table)


def _show_one(data: dict[str, Any]) -> None:
    console = page()
    for key, value in data.items():
        console.print(f"{key:<18}{value}", soft_wrap=True)
