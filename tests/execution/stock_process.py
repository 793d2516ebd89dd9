"""Start the stock client from a genesis, and ask it while virtual time stands still."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from learnchain.execution.engine_api import ClientError, token
from learnchain.rejection import Unavailable

CLIENT = "node_modules/@ethereumjs/client/dist/esm/bin/cli.js"
ENGINE, WALLETS = "http://127.0.0.1:8551", "http://127.0.0.1:8545"
SECRET_NAME = "secret.hex"
START_SECONDS = 60.0
BUILD_SECONDS = 0.3
"""Real time that the client gets to fill a payload: it works while our virtual clock does not move."""


@contextmanager
def stock_client(directory: Path, genesis: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the client on a genesis; it listens on every address, so this belongs into a network namespace."""
    (directory / "genesis.json").write_text(json.dumps(genesis))
    (directory / SECRET_NAME).write_text(os.urandom(32).hex())
    options = ["--gethGenesis", "genesis.json", "--dataDir", "data", "--isSingleNode", "--discDns=false"]
    options += ["--rpc", "--rpcAddr", "127.0.0.1", "--rpcEngine", "--rpcEngineAddr", "127.0.0.1"]
    options += ["--jwtSecret", SECRET_NAME, "--extIP", "127.0.0.1", "--logLevel=warn"]
    folder = Path(__file__).parent / "stock_client"
    with (directory / "log").open("w") as log:
        client = subprocess.Popen(["node", str(folder / CLIENT), *options], cwd=directory, stdout=log, stderr=log)
        try:
            yield client
        finally:
            client.kill()
            client.wait()


class WaitingCaller:
    """Ask over HTTP and wait for the answer in real time: a `ClientCaller` for simulated nodes."""

    def __init__(self, url: str, secret: bytes | None) -> None:
        self._url = url
        self._secret = secret

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """Return the result of one call."""
        if method == "engine_getPayloadV4":
            time.sleep(BUILD_SECONDS)
        headers = {"Content-Type": "application/json"}
        if self._secret is not None:
            headers["Authorization"] = f"Bearer {token(self._secret, int(time.time()))}"
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url, body, headers), timeout=60) as response:
                answer = json.loads(response.read())
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise Unavailable(f"the client at {self._url}: {error}") from error
        if answer.get("error") is not None:
            found = answer["error"]
            raise ClientError(int(found.get("code", 0)), str(found.get("message")), found.get("data"))
        return answer.get("result")

    async def close(self) -> None:
        """Nothing stays open."""
