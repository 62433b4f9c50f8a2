"""What `make check` says of known weaknesses, with pip-audit itself and an index of our own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
LOCK = "".join(
    f"# of a package\n{name} \\\n    --hash=sha256:{number:064x} \\\n    --hash=sha256:{9:064x}\n"
    for number, name in enumerate(["sound==1.0", "weak==1.0"])
)
RANGES = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.2"}]}]


@contextmanager
def index(status: int) -> Iterator[str]:
    """Serve an index that knows a weakness of `weak`, or only says a status."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]
            affected = [{"package": asked, "ranges": RANGES}]
            known = {"vulns": [{"id": "KNOWN-1", "affected": affected}]}
            body = json.dumps(known if asked["name"] == "weak" else {}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def audit(folder: Path, address: str, lock: str = LOCK, seconds: int = 600) -> tuple[int, str]:
    """Return the exit code and what is said."""
    path = folder / "small.lock"
    path.write_text(lock)
    command = [sys.executable, str(ROOT / ".ci" / "audit.py"), str(seconds), str(path)]
    command += ["--vulnerability-service", "osv", "--osv-url", address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def test_a_known_weakness_fails_and_is_named(tmp_path):
    with index(200) as address:
        assert audit(tmp_path, address) == (1, "weak 1.0: KNOWN-1, mended in 1.2\n")
        assert audit(tmp_path, address, LOCK.partition("# of a package\nweak")[0]) == (0, "")
        code, said = audit(tmp_path, address, "sound==1.0\n")
        assert (code, said.partition(":")[0]) == (1, "pip-audit fails")
        assert "sound==1.0 does not contain a hash" in said


def test_without_an_answer_a_line_says_so(tmp_path):
    with index(503) as address:
        code, said = audit(tmp_path, address)
        assert (code, said[:12]) == (0, "not audited:")
    code, said = audit(tmp_path, address)  # nobody listens there any more
    assert (code, said[:12], said.count("\n")) == (0, "not audited:", 1)
    assert "Connection" in said
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert audit(tmp_path, said, seconds=2) == (0, "not audited: no whole answer in 2 s\n")
