"""Lay out a whole network on one machine: accounts, data, genesis, one settings file a node; start nothing."""

import asyncio
import json
import os
import random
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.encoding.files import write_whole
from learnchain.engines import DEFAULT_ENGINE
from learnchain.engines.contract import LocalDurations, Rules
from learnchain.engines.registry import find_engine
from learnchain.execution.genesis import ESCROW_ADDRESS, execution_genesis
from learnchain.execution.wallet import Wallet, development_accounts
from learnchain.network.transport import IDENTITY_NAME, PeerAddress, load_identity, peer_id_of
from learnchain.node.settings import NodeSettings
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.task_specification import TaskSpecification
from learnchain.rejection import Rejected, RejectionReason
from learnchain.storage.blobs.peer_blobs import PeerBlobs
from learnchain.storage.genesis import Genesis, save_genesis
from learnchain.tasks.publishing import Vault, prepare_task
from learnchain.tasks.task_file import BUILT_IN, task_draft

DEVELOPMENT_MNEMONIC = "test test test test test test test test test test test junk"
"""The words that every development chain uses: its accounts are worth nothing and must never hold anything."""
LAYOUT_NAME = "network.json"
GENESIS_NAME = "genesis.json"
LOCAL_CHAIN_ID = 1337
LOCAL_COMMITMENTS = 64
"""More than a local network has miners; engines whose commitments are long allow no more."""
SPARE_ACCOUNTS = 3
"""Pre-funded accounts that no node uses: for the person's own wallet."""

LOCAL_MARGINS = {
    "clock_skew_milliseconds": 50,
    "payload_milliseconds": 200,
    "transfer_milliseconds": 200,
    "evaluation_milliseconds": 300,
}
"""All nodes share one clock and one disk, so the last phase may be short (ROUND-14)."""

LOCAL_PHASES = LocalDurations(
    key_milliseconds=1_500,
    training_milliseconds=5_000,
    judging_milliseconds=2_000,
    release_milliseconds=500,
    reveal_milliseconds=1_300,
)


@dataclass(frozen=True)
class LocalNeeds:
    """Say what the tasks of a local network need: standing tasks, phases, and time for an exact evaluation.

    No standing task named means those of the engine.
    """

    standing: tuple[str, ...] = ()
    phases: LocalDurations = LOCAL_PHASES
    evaluation_milliseconds: int = LOCAL_MARGINS["evaluation_milliseconds"]


def local_needs(tables: Iterable[Mapping[str, Any]]) -> LocalNeeds:
    """Return what tasks need together: a table's `local` part names phases; the longest ones serve all."""
    tables = list(tables)
    needs = LocalNeeds(standing=_standing_beside(tables))
    standing: list[str] = []
    for table in tables:
        local = table.get("local", {})
        if not local:
            continue
        try:
            one, two, three = (int(each) for each in local["phases_milliseconds"])
            release, reveal = int(local["release_milliseconds"]), int(local["reveal_milliseconds"])
            evaluation = int(local["evaluation_milliseconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the task's table [local] is wrong: {error!r}") from error
        phases = LocalDurations(one, two, three, release, reveal)
        if phases.interval_milliseconds > needs.phases.interval_milliseconds:
            needs = LocalNeeds(needs.standing, phases, evaluation)
        if local.get("standing") and BUILT_IN.get(str(table.get("name"))) == table:
            standing.append(str(table["name"]))
    return replace(needs, standing=tuple(standing)) if standing else needs


def _standing_beside(tables: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return a standing task on other data than those that some task keeps encrypted, whose rows it would open.

    Without such a task the engine's own choice stands.
    """
    hidden = {str(each["data"]["source"]) for each in tables if each.get("encryption", "symmetric") != "symmetric"}
    return tuple(each for each in ("digits", "iris") if each not in hidden)[:1] if hidden else ()


@dataclass(frozen=True)
class LocalPlan:
    """Say what network to lay out; node 0 is the publisher and steward, the others mine.

    `parameters` replaces chain parameters by name, for networks that want bonds or other windows.
    """

    directory: Path
    consensus: str = DEFAULT_ENGINE
    miners: int = 3
    standing: tuple[str, ...] = ()
    rpc_port: int = 8545
    first_block_milliseconds: int = 7_000
    mnemonic: str = DEVELOPMENT_MNEMONIC
    phases: LocalDurations = LOCAL_PHASES
    rules: Rules | None = None
    evaluation_milliseconds: int = LOCAL_MARGINS["evaluation_milliseconds"]
    finality_depth: int = 16
    random_source: random.Random = field(default_factory=random.SystemRandom)
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalNetwork:
    """Name the files and ports of a laid-out network."""

    directory: Path
    settings: tuple[Path, ...]
    rpc_ports: tuple[int, ...]
    accounts: tuple[str, ...]
    mnemonic: str
    consensus: str
    fresh: bool = field(default=True)


def existing_network(directory: Path) -> LocalNetwork | None:
    """Return the network that lies in a directory, so that a second start continues it."""
    layout = directory / LAYOUT_NAME
    if not layout.is_file():
        return None
    content = json.loads(layout.read_text())
    return LocalNetwork(
        directory=directory,
        settings=tuple(directory / each for each in content["settings"]),
        rpc_ports=tuple(content["rpc_ports"]),
        accounts=tuple(content["accounts"]),
        mnemonic=content["mnemonic"],
        consensus=content["consensus"],
        fresh=False,
    )


@dataclass(frozen=True)
class PreparedNetwork:
    """Hold a network whose nodes may start already: all but its genesis, for which they wait."""

    plan: LocalPlan
    network: LocalNetwork
    wallets: tuple[Wallet, ...]

    async def prepare_standing_tasks(self) -> tuple[TaskSpecification, ...]:
        """Return the standing tasks; the steward's data are encrypted and lie in its blob store then."""
        names = self.plan.standing or find_engine(self.plan.consensus).tasks
        return tuple([await _standing_task(self.plan, each) for each in names])

    def write_genesis(self, standing: tuple[TaskSpecification, ...], start_milliseconds: int) -> None:
        """Write the genesis, dated to the next whole second, and then the layout that makes a network of it."""
        genesis = _genesis(self.plan, self.wallets, standing, start_milliseconds - start_milliseconds % 1000 + 1000)
        genesis.check()
        layout = {
            "consensus": self.plan.consensus,
            "mnemonic": self.plan.mnemonic,
            "accounts": list(self.network.accounts),
            "settings": [str(path.relative_to(self.plan.directory)) for path in self.network.settings],
            "rpc_ports": list(self.network.rpc_ports),
        }
        save_genesis(genesis, self.plan.directory / GENESIS_NAME)
        write_whole(self.plan.directory / LAYOUT_NAME, (json.dumps(layout, indent=1) + "\n").encode(), 0o644)


def prepare_network(plan: LocalPlan) -> PreparedNetwork:
    """Write wallets, identities and one settings file a node; a genesis that was never a network's is removed."""
    if not 1 <= plan.miners <= 16:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{plan.miners} miners: choose 1 to 16")
    find_engine(plan.consensus)
    plan.directory.mkdir(parents=True, exist_ok=True)
    (plan.directory / GENESIS_NAME).unlink(missing_ok=True)
    wallets = development_accounts(plan.mnemonic, plan.miners + 1 + SPARE_ACCOUNTS)
    listen, rpc = _free_ports(plan.miners + 1), _free_ports(plan.miners)
    ports = (plan.rpc_port or _free_ports(1)[0], *rpc)
    settings = tuple(_settings(plan, index, wallets[index], listen, ports[index]) for index in range(plan.miners + 1))
    addresses = tuple("0x" + wallet.address.hex() for wallet in wallets)
    network = LocalNetwork(plan.directory, settings, ports, addresses, plan.mnemonic, plan.consensus)
    return PreparedNetwork(plan, network, wallets)


async def provision_network(plan: LocalPlan, now_milliseconds: int) -> LocalNetwork:
    """Write everything a network needs at once, with a genesis some seconds ahead."""
    made = prepare_network(plan)
    made.write_genesis(await made.prepare_standing_tasks(), now_milliseconds + plan.first_block_milliseconds)
    return made.network


def _rules(plan: LocalPlan) -> Rules:
    return plan.rules or find_engine(plan.consensus).build_local(plan.phases, plan.miners)


def _genesis(
    plan: LocalPlan, wallets: tuple[Wallet, ...], standing: tuple[TaskSpecification, ...], start_milliseconds: int
) -> Genesis:
    parameters = ChainParameters(
        chain_id=LOCAL_CHAIN_ID,
        name="local",
        genesis_milliseconds=start_milliseconds,
        escrow=ESCROW_ADDRESS,
        steward=wallets[0].address,
        standing_specifications=standing,
        finality_depth=plan.finality_depth,
        maximum_commitments=LOCAL_COMMITMENTS,
        audit_reward_gwei=10_000_000,
        claim_window_seconds=2 * plan.phases.interval_milliseconds // 1000,
        empty_window_milliseconds=500,
        **{**LOCAL_MARGINS, "evaluation_milliseconds": plan.evaluation_milliseconds},
    )
    funded = {wallet.address: 10_000 * WEI_PER_ETHER for wallet in wallets}
    stamp = start_milliseconds // 1000 - 1
    return Genesis(
        replace(parameters, **plan.parameters),
        _rules(plan),
        execution_genesis(LOCAL_CHAIN_ID, stamp, 6_000_000, funded),
    )


async def _standing_task(plan: LocalPlan, name: str) -> TaskSpecification:
    if name not in BUILT_IN:
        known = ", ".join(sorted(BUILT_IN))
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"no standing task {name!r}; choose one of: {known}")
    draft = await asyncio.to_thread(task_draft, BUILT_IN[name])
    directory = plan.directory / "node-0"
    blobs, vault = PeerBlobs(directory / "blobs", None), Vault(directory / "vault")
    return await prepare_task(draft, blobs, vault, directory / "publishing", plan.random_source)


def _settings(plan: LocalPlan, index: int, wallet: Wallet, listen: tuple[int, ...], rpc_port: int) -> Path:
    directory = plan.directory / f"node-{index}"
    directory.mkdir(parents=True, exist_ok=True)
    key = directory / "wallet.key"
    handle = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(wallet.private_key.hex() + "\n")
    path = directory / "settings.json"
    # The nodes that are laid out already, with their identities, as iroh must know them.
    earlier = ((load_identity(plan.directory / f"node-{number}" / IDENTITY_NAME), number) for number in range(index))
    peers = tuple(str(PeerAddress("127.0.0.1", listen[number], peer_id_of(key))) for key, number in earlier)
    NodeSettings(
        name=f"node-{index}",
        genesis=str(plan.directory / GENESIS_NAME),
        data_directory=str(directory),
        wallet=str(key),
        listen_port=listen[index],
        peers=peers,
        is_miner=index > 0,
        is_publisher=True,
        rpc_port=rpc_port,
        # Different places in the task's ranges: miners compete by their choices, not by luck alone.
        learning_rate_thousandths=min(1000, 250 * index),
    ).save(path)
    return path


def _free_ports(count: int) -> tuple[int, ...]:
    """Return ports that are free now; a node that finds its port taken says so when it starts."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)
    finally:
        for each in sockets:
            each.close()
