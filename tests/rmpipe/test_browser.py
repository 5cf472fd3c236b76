"""MLflow's server: said once it answers, ended with us, and when it dies one reads why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rmpipe import browser

STAND_IN = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_):
        print("asked for", self.path, flush=True)
print("starting", flush=True)
time.sleep(0.5)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

SERVE = f"""
import signal, sys
from pathlib import Path
from rmpipe import browser
def stop(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)  # as the command does
browser._command = lambda home, uri, port: [sys.executable, "-c", {STAND_IN!r}, str(port)]
try:
    with browser.serving(Path(sys.argv[1]), "sqlite:///x", {{}}, 5321) as pages:
        print(pages.ready(), flush=True)
        pages.server.wait()
except KeyboardInterrupt:
    sys.exit(0)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_is_said_once_it_answers_and_ends_with_us(tmp_path: Path, number: int):
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline()
        assert said.startswith("http://127.0.0.1:5")
        log = (tmp_path / "logs" / "mlflow-server.log").read_text().splitlines()
        assert (log[0], log[-1]) == ("starting", "asked for /health")
        (server,) = psutil.Process(process.pid).children()
        process.send_signal(number)
        assert process.wait(20) == 0
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_when_the_server_dies_the_end_of_its_log_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dying = [sys.executable, "-c", "import sys; print('so many words'); sys.exit('no such database')"]
    monkeypatch.setattr(browser, "_command", lambda *_: dying)
    with (
        browser.serving(tmp_path, "sqlite:///x", {}, 5321) as pages,
        pytest.raises(RuntimeError, match=r"(?s)does not run \(exit code 1\); the end of .*log:.*no such database"),
    ):
        pages.ready()


def test_a_server_that_is_named_is_told_and_none_is_started(tmp_path: Path, monkeypatch):
    from rmpipe.lineage import Ledger

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example:5000")
    with Ledger(tmp_path).serving(5000) as pages:
        assert (pages.ready(), pages.server) == ("https://mlflow.example:5000", None)
    assert os.listdir(tmp_path) == []
