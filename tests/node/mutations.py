"""Every decoder that reads bytes of strangers, with honest bytes to start from, and the hand that spoils them."""

import dataclasses
import functools
import json
import random
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from learnchain.api.json_rpc import JsonRpcServer, JsonRpcSettings, Origin
from learnchain.consensus import audits
from learnchain.consensus.audits import AuditFinding, decode_fraud_proof, draw_segments
from learnchain.encoding.codec import FORMAT_VERSION, decode, encode
from learnchain.encoding.content_id import (
    Codec,
    Link,
    cid_from_text,
    cid_of_block,
    cid_text,
    decode_node,
    encode_node,
    parse_cid,
)
from learnchain.encoding.files import MemoryStore
from learnchain.engines.dlbc import Dlbc
from learnchain.execution.engine import EngineSignals
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.pyevm.transactions import decode_transaction
from learnchain.learning.safe_tensors import read_header, write_tensors
from learnchain.learning.trace import read_index
from learnchain.market.package import PackageManifest, read_package, write_package
from learnchain.market.terms import decode_description, encode_description
from learnchain.network import peers, wire
from learnchain.network.multiplexer import (
    HEADER_BYTES,
    MAXIMUM_PAYLOAD_BYTES,
    Frame,
    FrameDecoder,
    FrameKind,
    encode_frame,
)
from learnchain.network.transport import ConnectionLost, StreamEnded, parse_address
from learnchain.network.wire import MessageKind, raw_message, read_message
from learnchain.node.synchronising import BlockRange, Blocks, RoundSoFar, Status
from learnchain.protocol import audit_messages, messages
from learnchain.protocol.messages import Deadline, block_bytes
from learnchain.protocol.payload import PayloadStatusCode, decode_payload, encode_payload
from learnchain.protocol.task_specification import decode_specification, encode_specification
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder, build_sample_parameters
from learnchain.simulation.dispute_cases import (
    build_audit_commitment,
    build_audit_report,
    build_challenge,
    build_forgery_evidence,
    build_response,
    carry_challenge,
    forge_steps,
    run_until_seeded,
    stake_challenger,
)
from learnchain.simulation.sample_tasks import build_sample_specification
from learnchain.simulation.scenario import HeightPlan, open_height, run_empty_height, run_height, start_from_genesis
from learnchain.storage.archive import decode_block
from learnchain.storage.blobs.blob_store import read_tree
from learnchain_conformance.evidence_cases import last_height_record
from tests.execution.pyevm import chain as execution_chain
from tests.market.samples import DESCRIPTION, MODEL

WIRE_NOUNS = (
    wire.Hello,
    wire.Full,
    wire.Have,
    wire.Want,
    wire.Request,
    wire.Refusal,
    peers.AddressRecord,
    peers.AddressRecords,
    Status,
    BlockRange,
    Blocks,
    RoundSoFar,
)
MESSAGE_NOUNS = tuple(
    noun
    for room in (messages, audits, audit_messages)
    for name, noun in sorted(vars(room).items())
    if dataclasses.is_dataclass(noun) and getattr(noun, "__module__", "") == room.__name__ and name[0] != "_"
)


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Pair a decoder with honest bytes; `read` raises `Rejected` or returns."""

    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]


class Bytes:
    """A stream that ends."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read_exactly(self, size: int) -> bytes:
        if size > len(self._data):
            raise StreamEnded("the end")
        data, self._data = self._data[:size], self._data[size:]
        return data


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the decoder waits")


def decoders(folder: Path) -> dict[str, Decoder]:
    """Return every decoder by name."""
    found = {f"noun {noun.__name__}": _noun(noun) for noun in (*MESSAGE_NOUNS, *WIRE_NOUNS)}
    blocks = tuple(block_bytes(each) for each in _instances() if isinstance(each, messages.Block | messages.EmptyBlock))
    found["block"] = Decoder(blocks, decode_block)
    frames = b"".join(encode_frame(Frame(FrameKind.DATA, number, bytes(number))) for number in (1, 3, 300))
    found["frames"] = Decoder((frames, encode_frame(Frame(FrameKind.WINDOW, 1, bytes(4)))), _frames)
    found["gossip"] = Decoder(_gossip_seeds(), _gossip)
    cid = cid_of_block(b"x")
    found["content id"] = Decoder((cid,), parse_cid)
    found["content id text"] = Decoder((cid_text(cid).encode(),), lambda data: cid_from_text(data.decode("latin-1")))
    node = encode_node(tuple(Link(cid_of_block(bytes([n])), 100 + n, 100 + n) for n in range(5)))
    found["node"] = Decoder((node,), lambda data: decode_node(cid_of_block(data, Codec.DAG_PB), data))
    found["tree"] = Decoder((node,), _tree)
    written = len(node).to_bytes(4, "big") + node
    found["tree bytes"] = Decoder((written,), lambda data: read_tree(cid_of_block(node, Codec.DAG_PB), data, 1 << 20))
    found["address"] = Decoder((b"ab" * 32 + b"@[::1]:5", b"host:80"), lambda d: parse_address(d.decode("latin-1")))
    found["safetensors"] = _safetensors(folder)
    found["json-rpc"] = Decoder(_rpc_seeds(), _json_rpc())
    return found | _executed_decoders() | _market_decoders(folder)


def _executed_decoders() -> dict[str, Decoder]:
    """Return what reads payloads, transactions and what publishers and winners describe in bytes of their own."""
    engine = PyEvmEngine(MemoryStore(), execution_chain.genesis())
    chain = execution_chain.Chain(engine)
    transactions = (
        execution_chain.signed(execution_chain.KEYS[0], 0),
        execution_chain.signed(execution_chain.KEYS[0], 1, data=bytes(range(90)), gas=90_000),
        execution_chain.signed(
            execution_chain.KEYS[1],
            0,
            type=None,
            gasPrice=2 * 10**9,
            maxFeePerGas=None,
            maxPriorityFeePerGas=None,
        ),
    )
    full = chain.build(transactions, withdrawals=(execution_chain.reward(b"\x05" * 20, 7),))
    payloads = (encode_payload(full), encode_payload(chain.build()))

    def execute(data: bytes) -> None:
        payload = decode_payload(data)
        if engine.new_payload(payload, payload.beacon_root).status is PayloadStatusCode.INVALID:
            raise Rejected(RejectionReason.PAYLOAD_INVALID)

    specification = encode_specification(build_sample_specification("spoiled"))
    states = json.dumps({"leaves": [], "states": [cid_text(cid_of_block(bytes([n]))) for n in range(4)]}).encode()
    return {
        "payload": Decoder(payloads, execute),
        "transaction": Decoder(transactions, lambda data: decode_transaction(data, execution_chain.CHAIN_ID)),
        "specification": Decoder((specification,), decode_specification),
        "states of a trace": Decoder((states, json.dumps({"leaves": []}).encode()), read_index),
    }


def _market_decoders(folder: Path) -> dict[str, Decoder]:
    """Return what reads the announcements and packages of the market."""
    weights, package, out = folder / "model", folder / "package", folder / "out"
    weights.write_bytes(bytes(64))
    write_package(PackageManifest(MODEL, (0, 2)), weights, package)

    def read(data: bytes) -> None:
        package.write_bytes(data)
        read_package(package, DESCRIPTION, out)

    return {
        "description": Decoder((encode_description(DESCRIPTION),), decode_description),
        "package": Decoder((package.read_bytes(),), read),
    }


def mutated(seeds: tuple[bytes, ...], hand: random.Random) -> bytes:
    """Return honest bytes with one to four kinds of harm done to them."""
    data = bytearray(hand.choice(seeds))
    for _ in range(hand.randint(1, 4)):
        place = hand.randrange(len(data) + 1)
        match hand.randrange(7):
            case 0 if data:
                data[place % len(data)] ^= 1 << hand.randrange(8)
            case 1:
                del data[place : place + hand.randint(1, 64)]
            case 2:
                data[place:place] = hand.randbytes(hand.randint(1, 16))
            case 3:
                data[place : place + 4] = hand.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\xb9\xff\xff\xfb"))
            case 4:
                data[place:place] = data[: hand.randint(0, 256)]
            case 5:
                other = hand.choice(seeds)
                data[place:] = other[hand.randrange(len(other) + 1) :]
            case _:
                data[place:place] = bytes((hand.randrange(256),)) * hand.choice((1, 8, 2_000))
    return bytes(data)


def _noun(noun: type) -> Decoder:
    seeds = tuple(encode(each) for each in _instances() if type(each) is noun)
    # What a played height has no example of starts from lists and strings that resemble every noun.
    return Decoder(seeds or (b"\xc0", b"\xf8\x60" + (b"\xa0" + bytes(range(32))) * 2), lambda data: decode(noun, data))


@functools.cache
def _instances() -> tuple[object, ...]:
    """Return every noun that a trained and an empty height hold, and some of the wire."""
    observer, opened = start_from_genesis(ChainBuilder(Dlbc())), start_from_genesis(ChainBuilder(Dlbc()))
    found = open_height(opened, HeightPlan())
    revealed = [opened.builder.build_reveal(opened.parent, each) for each in found]
    announced = opened.builder.build_announcement(opened.parent, found)
    roots: list[object] = [*found, *revealed, announced, opened.builder.build_key_release(opened.parent)]
    roots += [run_height(observer), run_empty_height(observer, Deadline.KEY), observer.round, observer.builder]
    roots += _disputed()
    record = peers.AddressRecord(bytes(32), "10.0.0.1", 9, 1 << 40, bytes(64))
    roots += [
        wire.Hello(FORMAT_VERSION, bytes(32), bytes(32), "10.0.0.1", 80),
        wire.Full("topic", b"payload" * 20),
        wire.Have((bytes(32), b"x" * 32)),
        wire.Want((b"y" * 32,)),
        wire.Request("method", b"body"),
        wire.Refusal("malformed", "detail"),
        peers.AddressRecords((record, record)),
        Status(bytes(32), 5, 10**30),
        BlockRange(bytes(32), 7),
        Blocks((b"block", b"other")),
        RoundSoFar(
            (opened.builder.build_key_release(opened.parent),),
            tuple(each.commitment for each in found),
            (announced,),
            tuple(revealed),
        ),
    ]
    return tuple(_walk(roots, set()))


def _disputed() -> list[object]:
    """Return an audit and a dispute with all that is signed in them."""
    builder = ChainBuilder(Dlbc(), build_sample_parameters(audit_reward_gwei=1_000))
    node = start_from_genesis(builder)
    stake_challenger(node)
    run_until_seeded(node)
    report = build_audit_report(node)
    dispute = carry_challenge(node, build_challenge(last_height_record(node)))
    answer = build_response(node, dispute, forge_steps(node, dispute))
    evidence = build_forgery_evidence(node, answer, AuditFinding.FAULT_OUT_OF_BOUNDS)
    proof = decode_fraud_proof(evidence.statements[0])
    challenge = draw_segments(bytes(32), bytes(32), 9, 3)
    return [
        report,
        build_audit_commitment(report),
        build_challenge(last_height_record(node)),
        answer,
        evidence,
        proof,
        challenge,
    ]


def _walk(values: Iterable[object], seen: set[int]) -> Iterable[object]:
    for value in values:
        if id(value) in seen or isinstance(value, str | bytes | int | float | type):
            continue
        seen.add(id(value))
        if dataclasses.is_dataclass(value):
            yield value
            yield from _walk([getattr(value, each.name) for each in dataclasses.fields(value)], seen)
        elif isinstance(value, dict):
            yield from _walk(list(value.values()), seen)
        elif isinstance(value, list | tuple | set | frozenset):
            yield from _walk(list(value), seen)


def _frames(data: bytes) -> None:
    decoder = FrameDecoder()
    for start in range(0, len(data), 512):
        decoder.feed(data[start : start + 512])
        assert decoder.held_bytes <= HEADER_BYTES + MAXIMUM_PAYLOAD_BYTES + 512


_BODIES = {
    MessageKind.HELLO: wire.Hello,
    MessageKind.FULL: wire.Full,
    MessageKind.HAVE: wire.Have,
    MessageKind.WANT: wire.Want,
    MessageKind.REQUEST: wire.Request,
    MessageKind.REFUSAL: wire.Refusal,
}


def _gossip_seeds() -> tuple[bytes, ...]:
    kinds = {noun: kind for kind, noun in _BODIES.items()}
    honest = [each for each in _instances() if type(each) in kinds]
    return tuple(raw_message(kinds[type(each)], encode(each)) for each in honest)


def _gossip(data: bytes) -> None:
    try:
        kind, body = finished(read_message(Bytes(data), frozenset(_BODIES)))
    except ConnectionLost:
        return
    decode(_BODIES[kind], body)


def _tree(data: bytes) -> None:
    read_tree(cid_of_block(data, Codec.DAG_PB), len(data).to_bytes(4, "big") + data, 1 << 20)


def _safetensors(folder: Path) -> Decoder:
    path = folder / "weights"
    write_tensors(path, {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.uint8)}, {"who": "me"})

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_header(path, 1 << 20, RejectionReason.WEIGHTS_MALFORMED)

    return Decoder((path.read_bytes(),), read)


def _rpc_seeds() -> tuple[bytes, ...]:
    one = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance", "params": ["0x" + "00" * 20, "latest"]}
    query = {
        "fromBlock": "0x1",
        "toBlock": "latest",
        "address": ["0x" + "11" * 20],
        "topics": [None, ["0x" + "2" * 64]],
    }
    other = {"jsonrpc": "2.0", "id": "x", "method": "eth_newFilter", "params": [query]}
    gone = {"jsonrpc": "2.0", "id": None, "method": "eth_getFilterChanges", "params": ["0x1"]}
    return tuple(json.dumps(each).encode() for each in (one, other, gone, [one, other, gone], [[[{}]]], 1e300))


class _Refusing:
    """Stand in for the execution engine: it knows no method."""

    async def rpc(self, method: str, params: list[Any]) -> Any:
        raise Rejected(RejectionReason.METHOD_UNKNOWN, method)

    @property
    def signals(self) -> EngineSignals:
        # New ones for every server: a process has one server, this test has a hundred thousand.
        return EngineSignals()


def _json_rpc() -> Callable[[bytes], None]:
    engine: Any = _Refusing()
    origin = Origin()

    def read(data: bytes) -> None:
        import asyncio

        async def answered() -> str | None:
            server = JsonRpcServer(engine, JsonRpcSettings(maximum_batch=20), caller=engine)
            return await server.answer(data, origin)

        answer = asyncio.run(answered())
        if answer is None:
            return
        for each in [answer] if answer[0] != "[" else json.loads(answer):
            content = json.loads(each) if isinstance(each, str) else each
            # -32603 is how the server says that it met a bug of its own.
            assert content.get("error", {}).get("code") != -32603, data

    return read
