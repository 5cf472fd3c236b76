"""What MLflow has yet to be told, kept on disk so that a process that dies, or never opens MLflow, loses nothing of it.

An execution under way is a file of the journal from its run's beginning to its end; a note is an invocation that had
nothing to do. `Ledger.prepare` enters what is left.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rmpipe.store import write_whole


@dataclass(frozen=True)
class Execution:
    """What is known of a stage's execution before it begins."""

    stage: str
    address: str
    title: str
    kind: str
    params: dict[str, Any]
    runtime: dict[str, Any]
    study: str
    labels: dict[str, str]
    inputs: list[tuple[str, str, str, str | None]]
    """(argument, address, kind, its model id)"""
    parent_run: str | None
    surroundings: dict[str, Any]
    subject: str | None = None
    """The model id of the reward model that the numbers are about."""


@dataclass
class Entry:
    """An execution under way: its run and, once the artifact is whole, all that is to be entered of it."""

    execution: Execution
    run_id: str
    experiment: str
    model_id: str | None = None
    content: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[tuple[str, float, int, int]] = field(default_factory=list)
    """(name, value, step, milliseconds since the epoch)"""
    ended: int = 0
    """Milliseconds since the epoch."""


@dataclass(frozen=True)
class Journal:
    """The entries and notes below one home folder."""

    home: Path

    def file(self, address: str) -> Path:
        """Where the entry of an address is while its run is open."""
        return self.home / "journal" / "executions" / f"{address.replace('/', '-')}.json"

    def keep(self, entry: Entry) -> None:
        """Write an entry, or write it anew."""
        file = self.file(entry.execution.address)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(asdict(entry)))

    def entry(self, address: str) -> Entry | None:
        """The entry of an address; None when its run was closed, or the file is of another version of ours."""
        try:
            told = json.loads(self.file(address).read_text())
            return Entry(**told | {"execution": Execution(**told["execution"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def drop(self, address: str) -> None:
        """The run of an address is closed."""
        self.file(address).unlink(missing_ok=True)

    def addresses(self) -> list[str]:
        """Those of every open entry."""
        files = sorted(self.file("stage/address").parent.glob("[!.]*.json"))
        return ["/".join(file.stem.rsplit("-", 1)) for file in files]

    def note(self, told: dict[str, Any]) -> None:
        """Leave a note of an invocation, with the time of it."""
        file = self.home / "journal" / f"{time.time_ns()}-{os.getpid()}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps({**told, "time": now()}))

    def notes(self) -> Iterator[dict[str, Any]]:
        """Take the notes, oldest first: each is given to one process, whichever renames it first."""
        for file in sorted((self.home / "journal").glob("[!.]*.json")):
            mine = file.with_suffix(f".{os.getpid()}")
            try:
                file.rename(mine)
            except FileNotFoundError:
                continue
            told = json.loads(mine.read_text())
            mine.unlink()  # first: an invocation is entered once or, if we are killed here, not at all
            yield told


def now() -> int:
    """Milliseconds since the epoch, as MLflow counts."""
    return int(time.time() * 1000)
