"""Prefect's server of a store: one for all processes that use it, gone when none does.

A run, a schedule and the browser on one store talk to one server, so that its database has one writer. Whoever uses it
holds a shared lock; the last to let go ends it. A process that was killed lets go as well: the kernel drops its lock,
and the server, which looks every second, ends itself. `python -m flows.server HOME` is that server.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from flows.progress import whisper
from rmpipe.browser import LOOPBACK, PATIENCE, answers, healthy
from rmpipe.lock import HeldError, held, leave_alone
from rmpipe.store import Store, StoreError, write_whole

FIRST_PORT = 4200
HARMLESS = "sandbox allow-popups; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""For a report, which may have come from elsewhere: a page that runs nothing and asks nobody."""


OWN = "the store's own"


def settings(home: Path) -> dict[str, str]:
    """Prefect's state below our home, silent on the terminal, without telemetry and advertisements."""
    return {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "prefect" / "ui"),  # else among the installed packages
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",  # of services that an interrupt cuts off
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "DO_NOT_TRACK": "true",
    }


@contextmanager
def using(home: Path) -> Iterator[str]:
    """Prefect's API for all that is done inside: the server that PREFECT_API_URL names, or this store's own.

    Flow runs that a killed process left as running are closed.

    Args:
        home: the folder with all state.

    Yields:
        the address of the API; it ends in `/api`.

    Raises:
        RuntimeError: the server did not come up; the end of its log is in the message.
    """
    configure(home)
    with ExitStack() as stack:
        theirs = os.environ.get("PREFECT_API_URL")
        if theirs and not answers(f"{theirs}/health"):
            raise RuntimeError(f"PREFECT_API_URL: no server answers at {theirs}; start it, or unset the variable")
        url = theirs or stack.enter_context(_own(home))
        from flows.runs import close_abandoned

        close_abandoned(home, server_of(home))
        yield url


def configure(home: Path) -> None:
    """Before Prefect is imported: what it reads then, unless the user has set it."""
    for name, value in settings(home).items():
        os.environ.setdefault(name, value)


def server_of(home: Path) -> str:
    """Which server this process talks to: the store's own, whose port is another each time, or an address."""
    url = os.environ.get("PREFECT_API_URL", "")
    return OWN if url == Place(home).url() else url


@contextmanager
def _own(home: Path) -> Iterator[str]:
    """The store's server, started unless it runs, and ended if nobody else uses it."""
    place = Place(home)
    with place.only_one(_say_who), ExitStack() as stack:
        users = stack.enter_context(place.users.open("w"))
        fcntl.flock(users, fcntl.LOCK_SH)
        place.let_end()
        fresh = not held(place.alive)
        if fresh:
            place.said.unlink(missing_ok=True)  # of one that died: its port may be another store's by now
        url = _awaited(place, _start(place) if fresh else None)
        stack.pop_all()
    os.environ["PREFECT_API_URL"] = url
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.runs import close_all

    try:
        with temporary_settings({PREFECT_API_URL: url}):  # whatever Prefect read when it was imported
            if fresh:  # nobody else used this server, so whatever it takes for running is not
                close_all()
            yield url
    finally:
        _send_the_rest()
        os.environ.pop("PREFECT_API_URL", None)
        with place.only_one(_say_who):
            users.close()
            if place.unused():
                place.end()


def _say_who(holder: dict[str, Any]) -> None:
    whisper(f"waiting for process {holder['pid']}, which starts or ends Prefect's server since {holder['since']}")


def _send_the_rest() -> None:
    """Logs and states wait in this process to be sent in batches: before the server goes, they must be."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    def drain() -> None:
        for worker in (EventsWorker, APILogWorker):
            worker.drain_all(timeout=10, at_exit=False)

    thread = threading.Thread(target=drain)  # where no loop runs, it waits until all is sent
    thread.start()
    thread.join()


def _start(place: Place) -> subprocess.Popen[bytes]:
    """Start the server."""
    place.log.parent.mkdir(parents=True, exist_ok=True)
    with place.log.open("wb") as log:
        command = [sys.executable, "-m", "flows.server", str(place.home)]
        return subprocess.Popen(command, env=_environment(place.home), start_new_session=True, stdout=log, stderr=log)


def _awaited(place: Place, server: subprocess.Popen[bytes] | None) -> str:
    """The address of the API, once it answers: after seconds, the first time on a store after a minute and more.

    Args:
        server: the process if it is ours: it is ended again should it not come up.
    """
    end = time.monotonic() + PATIENCE
    try:
        while not (url := place.url()):
            if (server and server.poll() is not None) or time.monotonic() > end:
                last = "\n".join(place.log.read_text(errors="replace").splitlines()[-12:])
                raise RuntimeError(f"Prefect's server does not answer; the end of {place.log}:\n{last}")
            time.sleep(0.1)
    except BaseException:
        if server:
            server.kill()
            server.wait()
        raise
    return url


def _environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    ours = {"PREFECT__SERVER_FINAL": "1", "PREFECT_LOGGING_SERVER_LEVEL": "ERROR", "RMPIPE_HOME": str(home)}
    return kept | settings(home) | ours


class Place:
    """Where the server of a store says that it lives, and the locks by which that is known.

    Args:
        home: the folder with all state.
    """

    def __init__(self, home: Path):
        self.home = home
        self.folder = home / "prefect"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.said, self.alive, self.users = (self.folder / f"server.{end}" for end in ("json", "lock", "users"))
        self.log = home / "logs" / "prefect-server.log"

    def only_one(self, waiting: Callable[[dict[str, Any]], None]) -> AbstractContextManager[None]:
        """One process at a time starts or ends the server; `waiting` is told who does."""
        return Store(self.home).lock("prefect", waiting)

    def told(self) -> dict[str, Any] | None:
        """{"pid", "port", "since"} of a server that lives; None when there is none, whatever one that died has left."""
        if not held(self.alive):
            return None
        with suppress(OSError, ValueError):
            return json.loads(self.said.read_text())
        return None

    def url(self) -> str | None:
        """The address of its API, once it answers."""
        told = self.told()
        if told and healthy(told["port"], "/api/health"):
            return f"http://{LOOPBACK}:{told['port']}/api"
        return None

    def let_end(self) -> None:
        """Wait for a server that ends: it has taken away where it was said to live."""
        while held(self.alive) and not self.said.exists():
            time.sleep(0.05)

    def unused(self) -> bool:
        """Whether nobody holds the lock of its users."""
        return not held(self.users, shared=True)

    def end(self) -> None:
        """End the server and wait until it is gone."""
        told = self.told()
        if told is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(told["pid"], number)
            end = time.monotonic() + 10
            while time.monotonic() < end:
                with suppress(ChildProcessError):  # it is ours, or another's that started it
                    os.waitpid(told["pid"], os.WNOHANG)
                if not held(self.alive):
                    self.said.unlink(missing_ok=True)
                    return
                time.sleep(0.02)


# -- the server's own process ---------------------------------------------------------------------------------------


def main(home: Path) -> None:
    """Serve until told to end, or until nobody uses it."""
    place = Place(home)
    with place.alive.open("w") as alive, _bound() as door:
        fcntl.flock(alive, fcntl.LOCK_EX)
        server = _server(home, door.getsockname()[1])
        threading.Thread(target=_end_when_unused, args=(place, server), daemon=True).start()
        told = {"pid": os.getpid(), "port": door.getsockname()[1], "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_whole(place.said, json.dumps(told))
        server.run(sockets=[door])


def _bound() -> socket.socket:
    """A door on loopback, at the first free port."""
    for port in range(FIRST_PORT, FIRST_PORT + 500):
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((LOOPBACK, port))
            door.listen(128)  # two that bind one port at one moment are told apart here
            return door
        except OSError:
            door.close()
    raise RuntimeError(f"no free port from {FIRST_PORT} on")


def _server(home: Path, port: int) -> Any:
    """Prefect's API and pages, for this machine's own pages and programs alone, with the store's reports beside."""
    here = [f"http://{name}:{port}" for name in (LOOPBACK, "localhost")]
    os.environ["PREFECT_SERVER_UI_API_URL"] = f"{here[0]}/api"
    os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(here)  # by default any page of the web may ask
    import uvicorn
    from prefect.server.api.server import create_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    app = create_app(final=True)
    app.router.routes.insert(0, Route("/report/{code}", _report_of(home)))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"])
    app.middleware("http")(_at_home(here))
    return uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))


def _at_home(here: list[str]) -> Any:
    """Pages of ours ask us alone: Prefect's would ask a service that counts visitors, whatever its settings say."""
    asked = " ".join([*here, *(origin.replace("http", "ws", 1) for origin in here)])

    async def add(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers.setdefault("Content-Security-Policy", f"connect-src 'self' {asked}")
        return response

    return add


def _report_of(home: Path) -> Any:
    """The page of a report, by the digits of its address: browsers follow no link from a server to a file."""
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import FileResponse

    async def report(request: Request) -> FileResponse:
        code = request.path_params["code"]
        page = home / "store" / "report" / code / "report.html"
        if not code.isalnum() or not page.is_file():
            raise HTTPException(404, f"report/{code} is not in this store")
        return FileResponse(page, headers={"Content-Security-Policy": HARMLESS})

    return report


def _end_when_unused(place: Place, server: Any) -> None:
    while not server.should_exit:
        time.sleep(1)
        if not place.folder.exists():  # somebody has removed the home
            server.should_exit = True
        elif place.unused():
            with suppress(HeldError, StoreError), place.only_one(leave_alone):
                if place.unused():  # still
                    place.said.unlink(missing_ok=True)  # whoever comes now starts another
                    server.should_exit = True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
