"""The server of MLflow's pages: on loopback, below this process, and gone with it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
PATIENCE = 300.0  # seconds; a first start migrates a database, on a busy machine for a minute and more


@dataclass
class Pages:
    """MLflow's pages: where they are, and the process that serves them if it is ours."""

    url: str
    log: Path
    server: subprocess.Popen[bytes] | None = None

    def ready(self) -> str:
        """Wait until they answer; their address.

        Raises:
            RuntimeError: the server died before; the end of its log is in the message.
        """
        end = time.monotonic() + PATIENCE
        while self.server and not healthy(int(self.url.rsplit(":", 1)[1]), "/health"):
            self.check(late=time.monotonic() > end)
            time.sleep(0.2)
        return self.url

    def check(self, *, late: bool = False) -> None:
        """Raise RuntimeError if the server is gone, or too late."""
        if self.server and (late or self.server.poll() is not None):
            last = "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
            code = self.server.poll()
            raise RuntimeError(f"MLflow's server does not run (exit code {code}); the end of {self.log}:\n{last}")


@contextmanager
def serving(home: Path, uri: str, environment: dict[str, str], port: int) -> Iterator[Pages]:
    """Serve MLflow while the context lasts; the next free port is taken if this one is not.

    Args:
        home: the folder with all state; what the server says goes to `logs/mlflow-server.log`.
        uri: MLflow's address of the database. That of a server is only told: its pages are there.
        environment: what the server is told beside our own environment.
        port: the first to try.

    Yields:
        the pages, which may not answer yet.
    """
    log = home / "logs" / "mlflow-server.log"
    if uri.startswith(("http://", "https://")):
        yield Pages(uri, log)
        return
    port = _free_port(port)
    log.parent.mkdir(parents=True, exist_ok=True)
    with _running(_command(home, uri, port), {**os.environ, **environment}, log) as server:
        yield Pages(f"http://{LOOPBACK}:{port}", log, server)


def _command(home: Path, uri: str, port: int) -> list[str]:
    where = {"--host": LOOPBACK, "--port": str(port), "--workers": "1"}
    where |= {"--backend-store-uri": uri, "--default-artifact-root": (home / "mlflow-artifacts").as_uri()}
    return [sys.executable, "-m", "mlflow", "server", *(word for pair in where.items() for word in pair)]


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, so that Ctrl-C reaches us alone; its whole group is ended."""
    with log.open("wb") as file:
        server = subprocess.Popen(command, env=environment, start_new_session=True, stdout=file, stderr=file)
    try:
        yield server
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=10)


def healthy(port: int, path: str) -> bool:
    """Whether a server of this machine answers with 200."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def answers(url: str) -> bool:
    """Whether a server, of whatever machine, says anything at all within seconds."""
    try:
        urllib.request.urlopen(url, timeout=20).close()
    except urllib.error.HTTPError:  # a gateway that asks who we are, say
        return True
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def _free_port(first: int) -> int:
    for port in range(first, min(first + 100, 65536)):
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) != 0:
                return port
    raise RuntimeError(f"no free port from {first} on; give another with --port")
