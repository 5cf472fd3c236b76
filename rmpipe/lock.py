"""A file that one process at a time may hold; the kernel lets go of it when its holder dies."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any


class HeldError(Exception):
    """Somebody holds it, and it is to be left alone."""


def leave_alone(holder: dict[str, Any]) -> None:
    """For who does not wait, as `waiting`: raises HeldError."""
    raise HeldError


def acquire(path: Path, waiting: Callable[[dict[str, Any]], None]) -> IO[str]:
    """The open file, held and signed; to let go, remove its name first, and close it then.

    Args:
        waiting: called with what the holder has written of itself when somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("a+"))
            if _locked(file, path, waiting):
                _sign(file)
                stack.pop_all()
                return file


def held(file: Path, *, shared: bool = False) -> bool:
    """Whether a living process holds a file.

    Args:
        file: one that is held while something lasts; it may be gone.
        shared: whether a lock that several hold at once counts. If not, two that look do not see each other.
    """
    with suppress(FileNotFoundError, NotADirectoryError), file.open() as found:
        try:
            fcntl.flock(found, (fcntl.LOCK_EX if shared else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _sign(file: IO[str]) -> None:
    """Write into a file who holds it, for those who wait."""
    command = os.environ.get("RMPIPE_TASK", "")
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S"), "command": command}))
    file.flush()


def _locked(file: IO[str], path: Path, waiting: Callable[[dict[str, Any]], None]) -> bool:
    """Lock a file; False when its holder, letting go, removed its name, or another has made the name anew."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting(_holder(path))
        fcntl.flock(file, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _holder(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {"pid": "?", "since": "?", "command": ""}
