"""What lies outside the store: a user's files and folders, and hub ids, as text that moves when they change."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from rmpipe.config import StudyError, first_line

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
"""Files of a model's folder that say nothing of its tokenizer."""

# -- places -----------------------------------------------------------------------------------------------------------


def check_there(config: Any, where: str = "") -> None:
    """Refuse a `path` that looks like one of this machine, and has nothing at it.

    Args:
        config: anything with a `path`, or without.
        where: what the study calls it, for the message.

    Raises:
        StudyError: names the field and the path.
    """
    check_place(getattr(config, "path", None), f"{where}.path" if where else "")


def check_place(place: str | None, field: str = "") -> None:
    """Refuse a place that looks like one of this machine, and has nothing at it; a hub id passes.

    Raises:
        StudyError: names the field and the place.
    """
    if place is None or Path(place).exists():
        return
    named = place.startswith(("/", ".", "~", "$")) or Path(place).suffix in (".jsonl", ".json", ".parquet")
    if named or (len(Path(place).parts) > 2 and "://" not in place):
        raise StudyError(f"{f'{field}: ' if field else ''}{place}: nothing there; give a file, a folder or a hub id")


def fingerprint_path(config: Any) -> str:
    """SHA-256 of what a configuration's `path` names; a hub id with its revision; empty when it has no path.

    Raises:
        StudyError: the path looks like one of this machine, and nothing is there.
    """
    path = getattr(config, "path", None)
    return "" if path is None else fingerprint_place(path, getattr(config, "revision", None))


def fingerprint_place(place: str, revision: str | None = None, leave_out: tuple[str, ...] = ()) -> str:
    """SHA-256 of a file or folder; a hub id with its revision.

    Args:
        leave_out: endings of names of files in a folder that do not count.

    Raises:
        StudyError: the place looks like one of this machine, and nothing is there or it cannot be read.
    """
    check_place(place)
    if Path(place).exists():
        return fingerprint_files(Path(place), leave_out)
    return f"{place}@{revision or 'main'}"


def fingerprint_files(path: Path, leave_out: tuple[str, ...] = ()) -> str:
    """SHA-256 over a file, or over the names and contents of all files in a folder, hidden ones left out."""
    if path.is_file():
        return _digest(path)
    whole = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if file.is_file() and file.suffix not in leave_out and not any(part[0] == "." for part in inside.parts):
            whole.update(f"{inside}\0{_digest(file)}\n".encode())
    return whole.hexdigest()


def _digest(file: Path) -> str:
    try:
        stat = file.stat()
        return _digest_once(file, stat.st_size, stat.st_mtime_ns)
    except PermissionError as error:
        raise StudyError(f"{file}: cannot be read ({error.strerror}); give a file that can") from error


@lru_cache(maxsize=4096)
def _digest_once(file: Path, size: int, changed: int) -> str:
    """Each seed of a study asks again for the same folder."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# -- the hub ----------------------------------------------------------------------------------------------------------

NETWORK = {"TransportError", "Timeout", "ConnectionError", "ClientConnectionError", "LocalEntryNotFoundError"}
"""Names of classes that say the network failed, in httpx, requests, aiohttp and huggingface_hub. By name, since
importing those libraries would cost every command what few need."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of this machine's disk: neither the hub's fault nor the study's."""


class UnreachableError(ConnectionError):
    """The hub cannot be reached just now; trying again may help."""


def unreachable(error: BaseException) -> bool:
    """Whether an error came of a network or a hub that did not answer, somewhere in its chain of causes.

    An answer counts for more than whatever was made of it: one that says "no such thing" or "not for you" is none that
    another try would change.
    """
    links = list(_chain(error))
    codes = [getattr(getattr(link, "response", None), "status_code", None) for link in links]
    answers = [code for code in codes if isinstance(code, int)]
    if answers:
        return any(code >= 500 or code in (408, 429) for code in answers)
    return any(_of_network(link) for link in links)


@contextmanager
def reaching(place: str, field: str, remedy: str) -> Iterator[None]:
    """Say in one line what went wrong inside, where a library loads something from a folder or from the hub.

    Args:
        place: folder or hub id.
        field: what the study calls it.
        remedy: what to give instead.

    Raises:
        UnreachableError: the hub did not answer.
        StudyError: anything else, but for a full disk, which is raised as it came.
    """
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        if any(getattr(link, "errno", None) in FULL for link in _chain(error)):
            raise
        told = first_line(error)
        if unreachable(error) and not Path(place).exists():
            told = f"the hub cannot be reached ({told})"
            raise UnreachableError(f"{place}: {told}; check the network, or give a folder as {field}") from error
        raise StudyError(f"{field}: {place} cannot be loaded ({told}); {remedy}") from error


def keep_hub_below(home: Path) -> None:
    """Keep what the hub's libraries download below the folder of all state, unless the user has said where.

    They read this once, when they are first imported: call it before. A login stays where the user made it.
    """
    if os.environ.get("HF_HOME") or os.environ.get("HF_HUB_CACHE"):
        return
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    os.environ.setdefault("HF_TOKEN_PATH", str(usual / "token"))
    os.environ["HF_HOME"] = str(home.resolve() / "huggingface")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it and what it came in the middle of, each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            waiting += [link.__cause__, link.__context__]
            yield link


def _of_network(link: BaseException) -> bool:
    if isinstance(link, ConnectionError | TimeoutError | socket.gaierror):
        return True
    return any(kind.__name__ in NETWORK for kind in type(link).__mro__)
