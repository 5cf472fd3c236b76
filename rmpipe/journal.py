"""What MLflow has yet to be told, kept on disk so that a process that dies, or never opens MLflow, loses nothing of it.

An execution under way is a file of the journal from its run's beginning to its end; a note is an invocation that had
nothing to do. `Ledger.prepare` enters what is left.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rmpipe.store import write_whole

MODELS = {"Weights": "policy", "Policy": "aligned", "RewardModel": "reward-model"}
"""Kinds of artifact that are models, and what MLflow calls each."""


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

    @property
    def tags(self) -> dict[str, str]:
        """What its run is found by: the address, the study, the labels, the address of each input."""
        tags = {"rmpipe.address": self.address, "rmpipe.study": self.study, "rmpipe.kind": self.kind}
        tags |= {f"rmpipe.{name}": value for name, value in self.labels.items()}
        for name in dict.fromkeys(name for name, *_ in self.inputs):
            addresses = [address for argument, address, *_ in self.inputs if argument == name]
            tags[f"rmpipe.input.{name}"] = ", ".join(addresses)[:5000]
        if self.parent_run:
            tags["mlflow.parentRunId"] = self.parent_run
        if commit := self.surroundings.get("commit"):
            tags["mlflow.source.git.commit"] = commit
        return tags

    @property
    def registered(self) -> str:
        """What its model is registered by: `pocket.reward-model.off`, `pocket.aligned.weak.off.rloo`."""
        names = ("base", "policy", "reward_model", "algorithm")
        labels = [self.labels[name] for name in names if name in self.labels]
        return registrable(".".join([self.study or "rmpipe", MODELS[self.kind], *labels]))

    def card(self, folder: Path) -> str:
        """A short card of its model, whose files are in a folder."""
        made = "\n".join(f"- {name}: `{address}`" for name, address, *_ in self.inputs)
        by = f"**{self.title}**, made by study `{self.study}` at `{self.address}`"
        return f"{by}\n\nMade from:\n{made}\n\nFiles: `{folder}`"


def registrable(name: str) -> str:
    """A name without what MLflow refuses in one, reads as something else, or cannot be asked for."""
    return re.sub(r"[/:@'\"`]", "-", name)


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
