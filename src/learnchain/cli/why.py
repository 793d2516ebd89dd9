"""`learnchain why`: what a node decided, and on which numbers."""

from typing import Annotated, Any

import typer

from learnchain.cli.output import LOCAL_DIRECTORY, DataDirectoryOption, JsonOption, RpcOption, page, run_verb
from learnchain.cli.rpc import NodeClient, client_for

application = typer.Typer(help="Ask a node why it decided as it did.", no_args_is_help=True)
NodeOption = Annotated[int, typer.Option("--node", min=0, help="Which node to ask, in a local network.")]
_DISPUTED = ("disputes", "pending", "audits")
HeightArgument = Annotated[int, typer.Argument(metavar="HEIGHT", min=1, help="The block's height.")]


@application.command("block")
def why_block(
    height: HeightArgument,
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    node: NodeOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Say why a block is what it is: the task's score, each candidate's fate, the signed trace, the node's steps."""
    run_verb(as_json, lambda: _block(client_for(rpc, data_dir, node), height), _show)


@application.command("reward")
def why_reward(
    height: HeightArgument,
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    node: NodeOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Say who was paid what for a block: block reward, publisher's share, and the settlement of its task."""
    run_verb(as_json, lambda: _reward(client_for(rpc, data_dir, node), height), _show)


@application.command("disputes")
def why_disputes(
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    node: NodeOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Say who is asked for the steps of its training, by whom and until which block, and what became of it."""
    run_verb(as_json, lambda: _disputes(client_for(rpc, data_dir, node)), _show)


@application.command("idle")
def why_idle(
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    node: NodeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Say what a miner is doing or waiting for at this moment, and what it did last."""
    run_verb(as_json, lambda: _idle(client_for(rpc, data_dir, node)), _show)


def _block(client: NodeClient, height: int) -> dict[str, Any]:
    view = client.call("learn_block", height)
    if view["won_by"] == "hashing":
        puzzle = view["puzzle"]
        reason = f"won by {view['winner']}, whose commitment's digest {puzzle['digest'][:16]} lies below the target "
        reason += f"{puzzle['target'][:16]}: one hash in {puzzle['expected_attempts']:,} does"
    elif view["trained"]:
        reason = f"won by {view['winner']} with {view['accuracy']['correct']} of {view['accuracy']['total']}"
    else:
        reason = f"empty: no {view['missed']} came in time"
    return {
        "height": height,
        "hash": view["hash"],
        "because": reason,
        "task": view["task"],
        "commissioned": _describe_commission(view),
        "score": view["score"],
        "score_formula": client.call("learn_network")["formulas"]["score"],
        "queued_tasks": view["queued_tasks"],
        "candidates": view.get("verdict", []),
        "signed": _list_signed_messages(client, view["hash"]),
        "disputes": client.call("learn_disputes", height)["disputes"],
        "decisions": client.call("learn_decisions", height),
    }


def _describe_commission(view: dict[str, Any]) -> str:
    if view["won_by"] == "hashing":
        return "no: this chain hashes; the standing task only names the steward"
    if view["is_standing"]:
        return "no: nobody had asked for a model, so the chain trained a standing task; it mints no publisher's share"
    return "yes: its publisher locked the reward"


def _list_signed_messages(client: NodeClient, block_hash: str) -> list[dict[str, Any]]:
    """Return who signed what for a block; `learn_trace` gives the bytes, so that anybody can check them elsewhere."""
    names = ("step", "signer", "holds", "hash", "signature")
    messages = client.call("learn_trace", block_hash)["messages"]
    return [{name: each[name] for name in names} for each in messages]


def _disputes(client: NodeClient) -> dict[str, Any]:
    found = client.call("learn_disputes")
    going_on = sum(each["open"] for each in found["disputes"])
    because = f"{going_on} open: silence past its block costs the bond, a vain accusation its cost"
    return {"height": found["head"], "because": because, **{name: found[name] for name in _DISPUTED}}


def _reward(client: NodeClient, height: int) -> dict[str, Any]:
    view, network = client.call("learn_block", height), client.call("learn_network")
    settled = [each for each in client.call("learn_tasks")["settled"] if each["height"] == height]
    return {
        "height": height,
        "because": "an empty block mints nothing" if view["empty"] else "a block that is won mints the block reward",
        "block_reward_gwei": 0 if view["empty"] else network["block_reward_gwei"],
        "payouts": view["payouts"],
        "settlements": settled,
        "signed": _list_signed_messages(client, view["hash"]),
        "formula": network["formulas"]["reward"],
    }


def _idle(client: NodeClient) -> dict[str, Any]:
    status, current = client.call("learn_status"), client.call("learn_round")
    height = status["deciding"]["height"]
    phase, mine = status["phase"], status["address"]
    decisions = [*client.call("learn_decisions", height - 1), *client.call("learn_decisions", height)]
    return {
        "height": height,
        "because": _doing(phase["name"], mine, current, status),
        "phase": phase,
        "task": status["deciding"]["name"],
        "peers": status["peers"],
        "training": status["training"],
        "decisions": decisions,
    }


def _doing(phase: str, address: str, current: dict[str, Any], status: dict[str, Any]) -> str:
    if not status["peers"]:
        return "no peer is connected: nothing can be heard or won; check that other nodes run"
    if phase == "hashing":
        return "searching a digest below the target; the first solution that the steward hears ends the height"
    if not current["key_released"]:
        return "the publisher has not released the key of the training data yet"
    if address in current["commitments"]:
        return "committed to a model; waiting for the test set and the verdict"
    if phase == "training":
        return "training, or about to: the commitment is due when the phase ends"
    return "no commitment of this node at this height: its training came too late, or it does not mine"


def _show(data: dict[str, Any]) -> None:
    console = page()
    for key, value in data.items():
        if not isinstance(value, list):
            console.print(f"{key:<18}{value}", markup=False, soft_wrap=True)
            continue
        console.print(f"{key:<18}{len(value)}")
        for each in value:
            text = "  ".join(f"{name}={part}" for name, part in each.items()) if isinstance(each, dict) else each
            console.print(f"  {text}", markup=False, soft_wrap=True)
