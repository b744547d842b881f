"""A stand-in for the W&B server on 127.0.0.1, for the real client, agent, CLI and public API.

State is in memory (wandb_state.py). It serves grid sweeps to several agents at once, takes
history and files, hands preempted runs out again, answers the API page by page, and misbehaves when
asked to (`Faults`). What passes against it need not pass against the real service.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

from tests.fakes.wandb_state import ENTITY, State

KEY = "0123456789" * 4


class WandbServer(State):
    """The stand-in; ``url`` is what WANDB_BASE_URL must say. Use it as a context manager."""

    def __init__(self) -> None:
        handler = type("Handler", (_Handler,), {"state": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        super().__init__(f"http://127.0.0.1:{self.http.server_port}")

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def environment(self) -> dict[str, str]:
        """Return what the client needs to find this server and nothing else."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ENTITY": ENTITY}


class _Handler(BaseHTTPRequestHandler):
    """Requests in, JSON out."""

    state: WandbServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _misbehaves(self) -> bool:
        faults = self.state.faults
        chance = faults.chances.random()
        time.sleep(faults.delay)
        if faults.down or chance < faults.drops:
            faults.happened["dropped"] += 1
            self.close_connection = True
            return True
        if faults.refuse:
            faults.happened["refused"] += 1
            self._answer(403, b"on purpose")
            return True
        if chance < faults.drops + faults.errors:
            faults.happened["errors"] += 1
            self._answer(500, b"on purpose")
            return True
        return False

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Answer GraphQL and file streams; take telemetry and forget it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._misbehaves():
            return
        path = unquote(urlparse(self.path).path)
        if path == "/graphql":
            sent = json.loads(body)
            data = self.state.graphql(sent["query"], sent.get("variables") or {})
            answer = {"data": data}
        elif path.endswith("/file_stream"):
            answer = self.state.stream(path.split("/")[-2], json.loads(body))
        else:
            self.state.operations[path] += 1
            answer = {}
        self._answer(200, json.dumps(answer, allow_nan=False).encode())

    def do_PUT(self) -> None:
        """Store a file."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._misbehaves():
            return
        _, _, run, name = unquote(urlparse(self.path).path).split("/", 3)
        self.state.operations["PUT file"] += 1
        self.state.runs[run].files[name] = body
        self._answer(200, b"")

    def do_GET(self) -> None:
        """Give a stored file back."""
        if self._misbehaves():
            return
        if self.state.faults.file_errors:
            self.state.faults.happened["file errors"] += 1
            self._answer(500, b"on purpose")
            return
        _, _, run, name = unquote(urlparse(self.path).path).split("/", 3)
        self.state.operations["GET file"] += 1
        self._answer(200, self.state.runs[run].files[name], "application/octet-stream")
