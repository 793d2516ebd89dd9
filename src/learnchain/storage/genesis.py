"""One file that every node of a network starts from: chain parameters, engine and execution genesis."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learnchain.encoding.codec import FORMAT_VERSION, Hash32, decode, encode, parse_json
from learnchain.encoding.files import write_whole
from learnchain.engines.contract import Rules
from learnchain.engines.registry import decode_engine
from learnchain.execution.genesis import genesis_block_hash
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import ChainState, build_genesis_state
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_GENESIS_BYTES = 4 << 20


@dataclass(frozen=True)
class Genesis:
    """Join what consensus and execution must agree on before the first block."""

    parameters: ChainParameters
    rules: Rules
    execution: dict[str, Any]

    @property
    def hash(self) -> Hash32:
        """Return the hash that block 1 names as its parent."""
        return self.parameters.genesis_hash(genesis_block_hash(self.execution), self.rules.encode_parameters())

    def state(self) -> ChainState:
        """Return the state before the first block."""
        stamp = int(self.execution["timestamp"], 16)
        return build_genesis_state(self.parameters, self.hash, genesis_block_hash(self.execution), stamp)

    def check(self) -> None:
        """Refuse a genesis that no chain can run from, before anything is written."""
        self.parameters.check()
        self.rules.check_parameters(self.parameters)
        for task, specification in self.parameters.standing_tasks():
            self.rules.admit_task(task, specification, self.parameters)
        if int(self.execution["timestamp"], 16) * 1000 > self.parameters.genesis_milliseconds:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, "execution genesis is dated after the chain's genesis")


def save_genesis(genesis: Genesis, path: Path) -> None:
    """Write the genesis file: canonical bytes for machines, a summary beside them for people."""
    parameters = genesis.parameters
    content = {
        "format": FORMAT_VERSION,
        "consensus": genesis.rules.name,
        "genesis_hash": genesis.hash.hex(),
        "engine": genesis.rules.encode_parameters().hex(),
        "parameters": encode(parameters).hex(),
        "summary": {
            "name": parameters.name,
            "chain_id": parameters.chain_id,
            "genesis_milliseconds": parameters.genesis_milliseconds,
            "standing_tasks": [each.name for each in parameters.standing_specifications],
            "engine": repr(genesis.rules),
        },
        "execution": genesis.execution,
    }
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode(), 0o644)


def load_genesis(path: Path) -> Genesis:
    """Read and check a genesis file; a changed byte shows in the hash it names itself."""
    if not path.is_file():
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} is no file; copy the network's genesis.json there")
    if path.stat().st_size > MAXIMUM_GENESIS_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"{path} is larger than {MAXIMUM_GENESIS_BYTES} bytes")
    try:
        content = parse_json(path.read_text())
        version = content.get("format") if isinstance(content, dict) else None
        if type(version) is not int or version != FORMAT_VERSION:
            detail = f"{path} has format {version!r:.40}, this program reads {FORMAT_VERSION}: take the genesis file"
            detail += f" of a network of format {FORMAT_VERSION}, or run the program version that wrote this one"
            raise Rejected(RejectionReason.FORMAT_UNSUPPORTED, detail)
        parameters = decode(ChainParameters, bytes.fromhex(content["parameters"]))
        rules = decode_engine(content["consensus"], bytes.fromhex(content["engine"]))
        genesis = Genesis(parameters, rules, content["execution"])
    except (ValueError, KeyError, TypeError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"{path} is no genesis file: {error}") from error
    if genesis.hash.hex() != content["genesis_hash"]:
        raise Rejected(RejectionReason.WRONG_HASH, f"{path} does not hash to the genesis hash it names")
    genesis.check()
    return genesis
