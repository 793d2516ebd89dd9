"""Tokens as RFC 7519 wants them, and a client over real HTTP whose answers may be anything."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from learnchain.encoding.files import MemoryStore
from learnchain.execution import engine_api
from learnchain.execution.engine import Reverted
from learnchain.execution.engine_api import ClientError, Endpoints, EngineApiClient, HttpCaller, load_secret, token
from learnchain.execution.genesis import ESCROW_ADDRESS, execution_genesis
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain_conformance.engine_api_server import EngineApiServer
from tests.execution.pyevm.chain import CHAIN_ID, KEYS, genesis, signed

pytestmark = pytest.mark.network
SECRET = bytes(range(32))
NOW_SECONDS = 1_700_000_000


def test_a_token_is_signed_and_says_when_it_was_made():
    header, claims, signature = token(SECRET, NOW_SECONDS).split(".")
    expected = hmac.digest(SECRET, f"{header}.{claims}".encode(), hashlib.sha256)
    assert base64.urlsafe_b64decode(signature + "=") == expected
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(base64.urlsafe_b64decode(claims + "==")) == {"iat": NOW_SECONDS}


@pytest.mark.parametrize("content", ["", "zz" * 32, "00" * 31, "00" * 33, "00" * 2_000])
def test_a_wrong_secret_file_is_refused(tmp_path: Path, content: str):
    (tmp_path / "secret").write_text(content)
    with pytest.raises(Rejected) as caught:
        load_secret(tmp_path / "secret")
    assert caught.value.reason == RejectionReason.ARGUMENT_INVALID


def test_a_secret_is_read_with_or_without_its_prefix(tmp_path: Path):
    for prefix in ("", "0x"):
        (tmp_path / "secret").write_text(prefix + SECRET.hex() + "\n")
        assert load_secret(tmp_path / "secret") == SECRET
    with pytest.raises(Rejected):
        load_secret(tmp_path / "none")


Answer = Callable[[web.Request], Awaitable[web.Response]]


def served(answer: Answer, scenario: Callable[[str], Awaitable[None]]) -> None:
    async def main() -> None:
        application = web.Application()
        application.router.add_post("/", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            await scenario(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        finally:
            await runner.cleanup()

    asyncio.run(main())


def client_over(server: EngineApiServer) -> Answer:
    """Answer as a client does: the right token opens it, errors are JSON-RPC errors."""

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {token(SECRET, NOW_SECONDS)}":
            return web.Response(status=401, text="unauthorised")
        message = await request.json()
        content: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            content["result"] = await server.call(message["method"], message["params"])
        except ClientError as error:
            content["error"] = {"code": error.code, "message": error.message, "data": error.data}
        return web.json_response(content)

    return answer


def test_a_client_is_driven_over_http_with_the_right_secret_only():
    server = EngineApiServer(PyEvmEngine(MemoryStore(), genesis()))

    async def scenario(url: str) -> None:
        caller = HttpCaller(url, SECRET, lambda: NOW_SECONDS)
        engine = EngineApiClient(Endpoints(caller, caller), genesis())
        assert (await engine.capabilities()).chain_id == CHAIN_ID
        heard: list[str] = []
        engine.signals.transaction_listeners.append(heard.append)
        digest = await engine.rpc("eth_sendRawTransaction", ["0x" + signed(KEYS[0], 0).hex()])
        assert heard == [digest]
        with pytest.raises(Reverted) as reverted:
            await engine.rpc("eth_call", [{"to": "0x" + ESCROW_ADDRESS.hex(), "data": "0x3ccfd60b"}])
        assert reverted.value.data.hex() == "d0d04f60"
        for method, params, reason in (
            ("eth_getBalance", ["0x1"], RejectionReason.ARGUMENT_INVALID),
            ("eth_sendRawTransaction", ["0x03aa"], RejectionReason.TRANSACTION_INVALID),
            ("eth_sendTransaction", [{}], RejectionReason.METHOD_UNKNOWN),
            ("engine_exchangeCapabilities", [[]], RejectionReason.METHOD_UNKNOWN),
        ):
            with pytest.raises(Rejected) as caught:
                await engine.rpc(method, params)
            assert caught.value.reason == reason
        await engine.close()
        for secret, now in ((b"\1" * 32, NOW_SECONDS), (SECRET, NOW_SECONDS + 1), (None, NOW_SECONDS)):
            wrong = HttpCaller(url, secret, lambda now=now: now)
            with pytest.raises(Unavailable):
                await wrong.call("eth_chainId", [])
            await wrong.close()

    served(client_over(server), scenario)


def test_a_client_of_another_chain_or_without_our_methods_is_refused(monkeypatch: pytest.MonkeyPatch):
    async def scenario() -> None:
        other = execution_genesis(CHAIN_ID, 999, 6_000_000, {})
        server = EngineApiServer(PyEvmEngine(MemoryStore(), other))
        with pytest.raises(Rejected) as caught:
            await EngineApiClient(Endpoints(server, server), genesis()).check()
        assert caught.value.reason == RejectionReason.WRONG_CHAIN
        monkeypatch.setattr("learnchain_conformance.engine_api_server.METHODS", ("", "engine_newPayloadV4"))
        with pytest.raises(Rejected) as caught:
            await EngineApiClient(Endpoints(server, server), other).check()
        assert caught.value.reason == RejectionReason.METHOD_UNKNOWN

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"[" * 100_000, b'{"error": 1}', b"x" * 5_000])
def test_nonsense_from_a_client_is_no_bug_of_ours(body: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_api, "MAXIMUM_ANSWER_BYTES", 4_000)

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body)

    async def scenario(url: str) -> None:
        caller = HttpCaller(url, None, lambda: NOW_SECONDS)
        with pytest.raises((Unavailable, ClientError)):
            await caller.call("eth_chainId", [])
        await caller.close()

    served(answer, scenario)


def test_a_client_that_is_not_there_is_unavailable():
    async def scenario() -> None:
        caller = HttpCaller("http://127.0.0.1:1/", None, lambda: NOW_SECONDS)
        with pytest.raises(Unavailable):
            await caller.call("eth_chainId", [])
        await caller.close()

    asyncio.run(scenario())
