"""What MLflow has yet to be told, kept on disk so that a process that dies, or never opens MLflow, loses nothing of it.

An execution under way is a file of the journal from its run's beginning to its end; a note is an invocation that had
nothing to do. `Ledger.prepare` enters what is left. Whatever else must be closed when its process dies is a file that
is locked while the process lives.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rmpipe.store import write_whole

MODELS = {"Weights": "policy", "Policy": "aligned", "Preferred": "aligned", "RewardModel": "reward-model"}
"""Kinds of artifact that are models, and what MLflow calls each."""


SERVED = "schedules"
"""Schedules that a process serves: entries that do not mean that anything is computed."""


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
    purpose: str = ""
    """What its stage does, in a sentence."""

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
        tags |= source(self.study)
        if commit := self.surroundings.get("commit"):
            tags["mlflow.source.git.commit"] = commit
        return tags

    @property
    def registered(self) -> str:
        """What its model is registered by: `pocket-reward-model-off`, `pocket-aligned-weak-off-rloo`."""
        names = ("base", "policy", "reward_model", "algorithm", "training", "subset", "finetuning",
                 "reward", "arm")  # fmt: skip
        labels = [self.labels[name] for name in names if name in self.labels]
        return registrable("-".join([self.study or "rmpipe", MODELS[self.kind], *labels]))


def source(study: str) -> dict[str, str]:
    """The tags by which MLflow says what a run was started with."""
    return {"mlflow.source.name": f"rmpipe run {study}", "mlflow.source.type": "LOCAL"} if study else {}


def registrable(name: str) -> str:
    """A name without what MLflow refuses in one, reads as something else, or cannot be asked for.

    MLflow takes a name of three parts between dots for one of another catalogue, and links to a page that is not there.
    """
    return re.sub(r"[./:@'\"`]", "-", name)


def metric_name(text: str) -> str:
    """A name without what MLflow refuses in that of a metric, a parameter or a tag."""
    return "".join(letter if letter.isalnum() or letter in "_-. /:" else "_" for letter in text)


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

    @property
    def points(self) -> list[tuple[str, float, int, int]]:
        """Numbers and curves; the numbers at the last step, so that they stand, not a curve of one name."""
        last = max((step for _, _, step, _ in self.curve), default=0)
        told = [(name, value, last, self.ended) for name, value in self.metrics.items()]
        return [point for point in (*told, *self.curve) if math.isfinite(point[1])]


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

    @contextmanager
    def under_way(self, kind: str, name: str, told: dict[str, Any]) -> Iterator[None]:
        """Keep a file of what must be closed, locked while we live: whoever finds it free knows that we died.

        Args:
            kind: what it is, in the plural: a folder of the journal.
            name: one that a file may have; no two of a kind that are under way have the same.
            told: what is needed to close it, as JSON holds it.
        """
        file = self.home / "journal" / kind / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}")
        with part.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # before it has its name, else somebody finds it free
            held.write(json.dumps(told))
            held.flush()
            part.replace(file)
            try:
                yield
            finally:
                if not isinstance(sys.exception(), GeneratorExit):  # that is forgotten, not ended
                    file.unlink(missing_ok=True)

    def abandoned(
        self, kind: str, ours: Callable[[dict[str, Any]], bool] = lambda told: True
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Take what processes that died left under way: (name, told) each, given to one process at a time.

        It is out of the journal when the next is asked for; until then it is there for a later process, should closing
        it fail.

        Args:
            kind: as `under_way` had it.
            ours: whether we can close what tells this; else it is left to who can.
        """
        for file in sorted((self.home / "journal" / kind).glob("[!.]*.json")):
            with _held(file) as told:
                if told and not ours(told):
                    continue
                if told:
                    yield file.stem, told
                if told is not None:
                    file.unlink(missing_ok=True)


@contextmanager
def _held(file: Path) -> Iterator[dict[str, Any] | None]:
    """Hold a file that nobody else holds: what it tells, {} when it was torn; None when it is not ours to hold."""
    with ExitStack() as stack:
        try:
            held = stack.enter_context(file.open("r+"))
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = not os.path.samestat(os.fstat(held.fileno()), file.stat())
            told = None if gone else json.load(held)
        except (BlockingIOError, FileNotFoundError):
            told = None
        except ValueError:  # the machine went down while it was written: nobody can know what it was
            told = {}
        yield told


def now() -> int:
    """Milliseconds since the epoch, as MLflow counts."""
    return int(time.time() * 1000)
