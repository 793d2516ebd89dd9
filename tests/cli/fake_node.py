"""A JSON-RPC server on the loopback that answers from a table: what the read-only verbs talk to in tests."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answers = dict[str, Callable[..., Any]]


class RpcProblem(Exception):
    def __init__(self, code: int, message: str, reason: str | None = None, data: str | None = None) -> None:
        super().__init__(message)
        told = {"reason": reason} if reason else data
        self.error = {"code": code, "message": message} | ({"data": told} if told else {})


@contextmanager
def fake_node(answers: Answers, raw: bytes | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = raw if raw is not None else json.dumps(_answer(answers, request)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(answers: Answers, request: dict[str, Any]) -> dict[str, Any]:
    try:
        if request["method"] not in answers:
            raise RpcProblem(-32601, request["method"], "method_unknown")
        return {"jsonrpc": "2.0", "id": request["id"], "result": answers[request["method"]](*request["params"])}
    except RpcProblem as problem:
        return {"jsonrpc": "2.0", "id": request["id"], "error": problem.error}
