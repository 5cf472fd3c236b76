"""What a person sees while stages run: which stage, how far, how long. All of it on standard error."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

from rmpipe.config import digest
from rmpipe.store import Store
from tasks.execution import Outcome
from tasks.stage import Plan


class Progress:
    """Bars on a terminal, one line a finished stage elsewhere.

    Args:
        plan: the steps to run.
    """

    def __init__(self, plan: Plan):
        self.plan, self.total, self.done = plan, len(plan.to_run), 0
        self.began = time.monotonic()
        self.bars: dict[str, Any] = {}
        self.width = len(str(self.total))
        self.live = _bars() if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
            self.overall = self.live.add_task("stages", total=self.total)
        return self

    def __exit__(self, *_: Any) -> None:
        if self.live:
            self.live.stop()

    def event(self, kind: str, address: str, what: Any) -> None:
        """Show one event of a worker: `start`, `progress` or `wait`."""
        if kind == "start":
            if self.live:
                self.bars[address] = self.live.add_task(what, total=None)
        elif kind == "progress" and self.live and address in self.bars:
            self.live.update(self.bars[address], completed=what[0], total=what[1])
        elif kind == "wait":
            who = f"process {what['pid']}{' (' + what['command'] + ')' if what['command'] else ''}"
            self.say(f"waiting for {address}: {who} has been making it since {what['since']}")

    def finished(self, outcome: Outcome) -> None:
        """Count one finished stage and say how long it took."""
        self.done += 1
        title = self.plan.steps[outcome.address].call.title
        how = {"made": f"{outcome.seconds:.1f} s", "taken": "made by another process", "failed": "FAILED"}[outcome.how]
        if self.live:
            self.live.update(self.overall, completed=self.done)
            if outcome.address in self.bars:
                self.live.remove_task(self.bars.pop(outcome.address))
        self.say(f"{self.done:>{self.width}}/{self.total}  {title:<44} {outcome.address:<24} {how}{self._left()}")
        if outcome.error:
            self.say(f"{'':>{2 * self.width + 1}}  {outcome.error}")

    def _left(self) -> str:
        if self.live or not self.done:
            return ""
        spent = time.monotonic() - self.began
        left = spent / self.done * (self.total - self.done)
        return f"   ({spent:.0f} s so far, about {left:.0f} s left)"

    def say(self, text: str) -> None:
        """One line above the bars."""
        if self.live:
            self.live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


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
