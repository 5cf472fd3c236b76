"""What a store can do without, and how many bytes that is.

Kept is what a study asks for, what a registered version points at, and what is young, each with all that it was made
from. The rest can go, if it is old enough. An artifact is as old as its folder, which says when it came into
this store; its record's `created` would call what was imported yesterday old. All else is as old as its newest file.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmpipe.artifact import Artifact, parents
from rmpipe.config import StudyError
from rmpipe.journal import SERVED
from rmpipe.lock import HeldError, held, leave_alone
from rmpipe.store import Store

GONE = ".gone"
"""What is on its way out is called so: whatever its age, it goes."""


@dataclass(frozen=True)
class Piece:
    """One thing that can go.

    Attributes:
        kind: `artifacts`, `MLflow` or the like: with `of`, a line of what a person is shown.
        of: what of that kind: a stage, `runs`.
        name: an address, a file, or the id of a row.
        size: bytes of its files.
        address: that of the artifact it is about; empty when it is about none.
        path: what is removed of the disk; None for a row of a database.
    """

    kind: str
    of: str
    name: str
    size: int = 0
    address: str = ""
    path: Path | None = None


@dataclass(frozen=True)
class Kept:
    """The addresses that stay, by reason."""

    studies: frozenset[str]
    registered: frozenset[str]
    young: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        """Every address that stays."""
        return self.studies | self.registered | self.young

    def counts(self, store: Store) -> dict[str, int]:
        """How many artifacts of the store each reason keeps that none before it does."""
        there = set(store.all())
        alone = {"studies": self.studies, "registered": self.registered - self.studies}
        alone["young"] = self.young - self.registered - self.studies
        return {reason: len(addresses & there) for reason, addresses in alone.items()}


def keep(store: Store, studies: Iterable[str], registered: Iterable[str], before: float) -> Kept:
    """What stays.

    Args:
        store: where artifacts lie.
        studies: all addresses of the studies to keep.
        registered: the addresses that registered versions point at.
        before: seconds since the epoch; what was made since then stays.
    """
    young = [address for address in store.all() if store.folder(address).stat().st_mtime >= before]
    return Kept(*(reached(store, roots) for roots in (studies, registered, young)))


def reached(store: Store, roots: Iterable[str]) -> frozenset[str]:
    """Addresses, and all that they were made from."""
    found, waiting = set[str](), list(roots)
    while waiting:
        address = waiting.pop()
        if address not in found:
            found.add(address)
            with suppress(StudyError, KeyError):  # not made yet, or altered: nobody can tell from what
                waiting += parents(Artifact(address, store.home).record["inputs"])
    return frozenset(found)


def _written(path: Path) -> float:
    """When the newest file of a folder was written, or a file."""
    return max(each.lstat().st_mtime for each in (path, *path.rglob("*")))


def weight(path: Path) -> int:
    """Bytes of the files in a folder, or of a file; what a link names is not ours to count."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(each.lstat().st_size for each in files if each.is_file() or each.is_symlink())


# -- what can go ------------------------------------------------------------------------------------------------------


def pieces(store: Store, kept: Kept, before: float) -> list[Piece]:
    """Everything on the disk that can go: artifacts, half-made ones and checkpoints that nobody makes, old logs."""
    return [*_artifacts(store, kept, before), *_unfinished(store, kept, before), *_logs(store, before)]


def _artifacts(store: Store, kept: Kept, before: float) -> Iterator[Piece]:
    stays = kept.all
    for path in sorted(store.root.glob("*/[0-9a-f]*")):
        address = f"{path.parent.name}/{path.name}"
        if address not in stays and path.stat().st_mtime < before:
            yield Piece("artifacts", path.parent.name, address, weight(path), address, path)
    for path in sorted((store.home / "ancestry").glob("*/[0-9a-f]*.json")):
        if f"{path.parent.name}/{path.stem}" not in stays and path.stat().st_mtime < before:
            name = str(path.relative_to(store.home))
            yield Piece("artifacts", "records of ancestors", name, weight(path), path=path)


def _unfinished(store: Store, kept: Kept, before: float) -> Iterator[Piece]:
    """Hidden folders that a killed process left, and scratch of addresses that are no longer asked for."""
    stays, scratch = kept.all, store.home / "scratch"
    for path in sorted([*store.root.glob("*/.*"), *scratch.glob("*")]):
        hidden, name = path.name.startswith("."), path.name.lstrip(".").split(".")[0]
        address = "/".join(name.rsplit("-", 1)) if path.parent == scratch else f"{path.parent.name}/{name}"
        asked = address in stays and not hidden
        old = path.suffix == GONE or _written(path) < before
        if not asked and old and not held(store.lock_file(address)):
            of = "half-made artifacts" if path.parent != scratch else "scratch"
            yield Piece("left behind", of, str(path.relative_to(store.home)), weight(path), address, path)


def _logs(store: Store, before: float) -> Iterator[Piece]:
    for path in sorted((store.home / "logs").glob("worker-*.log")):
        if _written(path) < before and not _lives(path.stem.removeprefix("worker-")):
            yield Piece("left behind", "logs of workers", str(path.relative_to(store.home)), weight(path), path=path)


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


# -- who is at work ---------------------------------------------------------------------------------------------------


def under_way(home: Path) -> list[str]:
    """Who works on a store: the holder of each lock of an address, and each journal file that its process holds.

    Who only serves a schedule does not: its runs do, when they come.
    """
    files = sorted([*(home / "locks").glob("*-*.lock"), *(home / "journal").glob("*/[!.]*.json")])
    return [_holder(file) for file in files if file.parent.name != SERVED and held(file)]


def _holder(file: Path) -> str:
    told: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        told = json.loads(file.read_text())
    process = f", process {told['pid']}" if "pid" in told else ""
    return f"{told.get('command') or told.get('study') or 'a run'} (at {file.stem}{process})"


# -- going ------------------------------------------------------------------------------------------------------------


def remove(store: Store, piece: Piece) -> bool:
    """Take one thing off the disk, under the lock of its address; False when somebody holds that.

    It is renamed first: a process that is killed here leaves a hidden folder, never half an artifact.
    """
    path = piece.path
    if path is None or not piece.address:
        return path is None or _unlinked(path)
    try:
        with store.lock(piece.address, waiting=leave_alone):
            gone = path if path.name.startswith(".") else path.with_name(f".{path.name}.{os.getpid()}{GONE}")
            with suppress(FileNotFoundError):  # somebody else's tidying was here first
                path.rename(gone)
                shutil.rmtree(gone)
    except HeldError:
        return False
    return True


def _unlinked(path: Path) -> bool:
    path.unlink(missing_ok=True)
    return True


def shrink(database: Path) -> int:
    """Give a database's free pages back to the disk; how many bytes. One that is in use, or gone, stays as it is."""
    if not database.exists():
        return 0
    before = database.stat().st_size
    with suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=1)) as connection:
        connection.execute("VACUUM")
    return before - database.stat().st_size
