"""The server of MLflow's pages: on loopback, below this process, and gone with it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"
PATIENCE = 300.0  # seconds; a first start migrates a database, on a busy machine for a minute and more


def serve(home: Path, uri: str, environment: dict[str, str], port: int) -> int:
    """Serve MLflow until KeyboardInterrupt; the next free port is taken if this one is not.

    Args:
        home: the folder with all state; what the server says goes to `logs/mlflow-server.log`.
        uri: MLflow's address of the database. That of a server is only told: its pages are there.
        environment: what the server is told beside our own environment.

    Returns:
        The exit code: 0 when it was asked to end.

    Raises:
        RuntimeError: the server died before it answered; the end of its log is in the message.
    """
    if uri.startswith(("http://", "https://")):
        print(f"MLFLOW_TRACKING_URI names a server: MLflow is on {uri}")
        return 0
    port, log = _free_port(port), home / "logs" / "mlflow-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with _running(_command(home, uri, port), {**os.environ, **environment}, log) as server:
        try:
            _await(server, port, log)
            print(f"MLflow on http://{LOOPBACK}:{port}   (Ctrl-C ends it)", flush=True)
            return server.wait()
        except KeyboardInterrupt:
            return 0


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


def _await(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not _healthy(port):
        if server.poll() is not None or time.monotonic() > end:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
            raise RuntimeError(f"MLflow's server did not start (exit code {server.poll()}); the end of {log}:\n{last}")
        time.sleep(0.2)


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port(first: int) -> int:
    for port in range(first, min(first + 100, 65536)):
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) != 0:
                return port
    raise RuntimeError(f"no free port from {first} on; give another with --port")
