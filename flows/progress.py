"""What a person sees while stages run: which stage, how far, how long. All of it on standard error."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rmpipe.config import digest
from rmpipe.store import Store
from tasks.execution import Outcome
from tasks.stage import Plan

KNOWN = 0.85
"""The share of the stages ahead whose like has been made, from which on the time left is told."""


class Progress:
    """Bars on a terminal, one line a finished stage elsewhere.

    Args:
        plan: the steps to run.
        jobs: how many at a time.
        also: told every line beside; a flow run's log, say.
    """

    def __init__(self, plan: Plan, jobs: int, also: Callable[[str], None] = lambda text: None):
        self.plan, self.jobs, self.total, self.done, self.also = plan, jobs, len(plan.to_run), 0, also
        self.ahead = Counter(step.call.stage.name for step in plan.to_run)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.began = time.monotonic()
        self.bars: dict[str, Any] = {}
        self.width = len(str(self.total))
        self.live = _bars() if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
            self.overall = self.live.add_task("stages", total=self.total, left="")
        return self

    def __exit__(self, *_: Any) -> None:
        if self.live:
            self.live.stop()

    def event(self, kind: str, address: str, what: Any) -> None:
        """Show one event of a worker: `start`, `progress` or `wait`."""
        if kind == "start":
            if self.live:
                self.bars[address] = self.live.add_task(what, total=None, left="")
        elif kind == "progress" and self.live and address in self.bars:
            self.live.update(self.bars[address], completed=what[0], total=what[1])
        elif kind == "wait":
            who = f"process {what['pid']}{' (' + what['command'] + ')' if what['command'] else ''}"
            self.say(f"waiting for {address}: {who} has been making it since {what['since']}")

    def finished(self, outcome: Outcome) -> None:
        """Count one finished stage and say how long it took."""
        self.done += 1
        call = self.plan.steps[outcome.address].call
        self.ahead[call.stage.name] -= 1
        if outcome.how == "made":
            self.seconds[call.stage.name].append(outcome.seconds)
        how = {"made": f"{outcome.seconds:.1f} s", "taken": "made by another process", "failed": "FAILED"}[outcome.how]
        if self.live:
            self.live.update(self.overall, completed=self.done, left=self._left())
            if outcome.address in self.bars:
                self.live.remove_task(self.bars.pop(outcome.address))
        spent = "" if self.live else f"   ({time.monotonic() - self.began:.0f} s so far{self._left()})"
        self.say(f"{self.done:>{self.width}}/{self.total}  {call.title:<44} {outcome.address:<24} {how}{spent}")
        if outcome.error:
            self.say(f"{'':>{2 * self.width + 1}}  {outcome.error}")

    def _left(self) -> str:
        """How long the rest takes, by the mean of each stage so far; nothing while most of the rest is yet unknown."""
        means = {name: sum(each) / len(each) for name, each in self.seconds.items()}
        known = sum(count for name, count in self.ahead.items() if name in means)
        if known < KNOWN * self.ahead.total():
            return ""
        left = sum(means.get(name, 0.0) * count for name, count in self.ahead.items()) / self.jobs
        return f", about {left:.0f} s left"

    def say(self, text: str) -> None:
        """One line above the bars."""
        self.also(text)
        if self.live:
            self.live.console.print(text, highlight=False, markup=False)
        else:
            whisper(text)


def whisper(text: str) -> None:
    """One line on standard error; where nobody listens any more, the work goes on in silence."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as we live


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    return Progress(*columns, console=Console(stderr=True))


def hit_notes(plan: Plan) -> list[str]:
    """What the hits of a plan should say, each note of a stage's in one line, and each of an artifact only once.

    Returns:
        lines such as `hit   48 x align: code changed since: rmpipe.policy.sample`.
    """
    notes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for step in plan.steps.values():
        for note in say_once(plan.store, step.address, step.notes):
            notes[step.call.stage.name, note].append(step.address)
    return [
        f"hit   {found[0] if len(found) == 1 else f'{len(found)} x {name}'}: {note}"
        for (name, note), found in notes.items()
    ]


def say_once(store: Store, address: str, notes: tuple[str, ...] | list[str]) -> list[str]:
    """The notes on a hit that were not said before on this store; they are said only once."""
    if not notes:
        return []
    file, made = store.home / "said.txt", (store.record(address) or {}).get("created")
    said = set(file.read_text().split()) if file.exists() else set()
    new = {key: note for note in notes if (key := digest([address, note, made])) not in said}
    with suppress(OSError), file.open("a") as out:  # a store that may only be read says it each time
        out.write("".join(f"{key}\n" for key in new))
    return list(new.values())
