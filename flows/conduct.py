"""Running a plan: Prefect calls the stages in their order, side by side where they do not need each other.

A flow function is read once, inside `planning()`; what `plan` prints is what is run here. Prefect's own result cache is
not used: it answers without looking whether files are there and whole, so each task asks the store, and a hit is shown
in Prefect as `Cached`.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from flows.artifacts import leave_artifacts
from flows.inquiry import Inquiry
from flows.progress import Progress, hit_notes, say_once, whisper
from flows.runs import under_way
from flows.server import server_of, using
from rmpipe.journal import Journal
from rmpipe.lineage import Ledger
from rmpipe.store import Store
from tasks.execution import Errand, Outcome, Pool
from tasks.stage import Step

RUNS = "runs"


class StageFailedError(RuntimeError):
    """A stage raised; the message is its title, address and last error line."""

    def __init__(self, outcome: Outcome, title: str, also: str = ""):
        super().__init__(f"{title} ({outcome.address}): {outcome.error}{also}")
        self.outcome = outcome


@dataclass(frozen=True)
class Manner:
    """How a plan is run, never what it makes.

    Args:
        jobs: how many stages at a time, at most, each in a process of its own.
        threads: how many threads each of these computes with.
        keep_going: after a failure, still make what does not need the stage that failed.
    """

    jobs: int
    threads: int = 1
    keep_going: bool = False


def conduct(inquiry: Inquiry, manner: Manner) -> list[dict[str, Any]]:
    """Make everything a plan asks for, as a flow run of Prefect's.

    Returns:
        what became of each step, as `Plan.summary` says it.

    Raises:
        StoreError: the store cannot be written, or its disk is full; said before anything is begun.
        StageFailedError: a stage raised; those that need it did not run, the others that had begun were finished.
        KeyboardInterrupt: Ctrl-C; no process, lock or half-written artifact is left.
    """
    with conductor(inquiry, manner) as leader:
        _in_prefect(leader)
    return leader.summary()


@contextmanager
def conductor(inquiry: Inquiry, manner: Manner) -> Iterator[Conductor]:
    """The conductor of a plan, with its workers and its run in MLflow; `perform` it inside a flow of Prefect's."""
    plan, study = inquiry.plan, inquiry.study
    plan.store.check_writable()
    with _said_to_run(plan.store.home, study.name):
        yield from _conductor(inquiry, manner)


@contextmanager
def _said_to_run(home: Path, study: str) -> Iterator[None]:
    """From its first moment on, a run is known to who would tidy the store."""
    journal = Journal(home)
    for _ in journal.abandoned(RUNS):
        pass  # there is nothing to close: only to forget
    with journal.under_way(RUNS, uuid4().hex, {"pid": os.getpid(), "study": study}):
        with Store(home).lock("tidy", waiting=_say_who_tidies):
            pass  # whoever tidies from now on sees us
        yield


def _say_who_tidies(holder: dict[str, Any]) -> None:
    whisper(f"waiting for process {holder['pid']}, which tidies this store since {holder['since']}")


def _conductor(inquiry: Inquiry, manner: Manner) -> Iterator[Conductor]:
    plan, study = inquiry.plan, inquiry.study
    ledger = Ledger(plan.store.home)
    jobs = max(1, min(manner.jobs, len(plan.to_run)))
    whisper(f"{len(plan.to_run)} of {len(plan.steps)} stages to run, {jobs} at a time; starting Prefect and MLflow ...")
    pool, leader = Pool(plan.store, jobs, manner.threads), None
    whole, parent = False, ""
    try:
        pool.warm({step.call.stage.module for step in plan.to_run})
        ledger.prepare()
        parent = ledger.open_study(study.name, study.flow)
        errand = Errand(study.name, parent, plan.strict)
        leader = Conductor(inquiry, pool, errand, replace(manner, jobs=jobs))
        yield leader
        whole = True
    finally:
        pool.close(at_once=not whole)
        if leader:
            report = inquiry.report if whole else None
            ledger.close_study(parent, leader.summary(), "FINISHED" if whole else "FAILED", report)


class Conductor:
    """Submits each step once all it needs is there."""

    def __init__(self, inquiry: Inquiry, pool: Pool, errand: Errand, manner: Manner):
        self.inquiry, self.plan, self.pool, self.errand, self.manner = inquiry, inquiry.plan, pool, errand, manner
        self.done: queue.Queue[str] = queue.Queue()
        self.futures: dict[str, Any] = {}
        self.told: dict[str, Outcome] = {}
        self.outcomes: dict[str, Outcome] = {}

    def summary(self) -> list[dict[str, Any]]:
        """What became of each step, as `Plan.summary` says it."""
        return self.plan.summary({address: outcome.how for address, outcome in self.outcomes.items()})

    def perform(self, say: Callable[[str], None]) -> None:
        """Inside a Prefect flow: run every step to its end, or until one fails, and leave the answer in Prefect.

        Args:
            say: told each line of what a person sees.
        """
        try:
            self._play(say)
            leave_artifacts(self.inquiry.report)
        except BaseException:
            self.pool.close(at_once=True)  # first of all: Prefect waits for its threads, and they for the workers
            raise

    def _play(self, say: Callable[[str], None]) -> None:
        waiting = dict(self.plan.steps)
        with Progress(self.plan, self.manner.jobs, say) as progress:
            for text in hit_notes(self.plan):
                progress.say(text)
            while True:
                for step in self._ready(waiting):
                    self._submit(waiting.pop(step.address))
                if not self.futures:
                    break
                self._listen(progress)
        if failed := self._failed():
            raise self._error(failed, waiting)

    def _failed(self) -> list[Outcome]:
        """What failed, before what merely waited for a worker that died."""
        failed = [outcome for outcome in self.outcomes.values() if outcome.how in ("failed", "not run")]
        return sorted(failed, key=lambda outcome: outcome.how)

    def _error(self, failed: list[Outcome], waiting: dict[str, Step]) -> StageFailedError:
        also = ""
        if self.manner.keep_going:
            others = f"{len(failed) - 1} more failed, " if len(failed) > 1 else ""
            also = f" ({others}{len(waiting)} that need what failed were not run, the rest is made)"
        return StageFailedError(failed[0], self.plan.steps[failed[0].address].call.title, also)

    def _ready(self, waiting: dict[str, Step]) -> list[Step]:
        if not self.manner.keep_going and self._failed():
            return []
        free = 2 * self.manner.jobs + 2 - len(self.futures)  # a few in the queue, so that no worker idles
        ready = (step for step in waiting.values() if all(map(self._there, step.call.awaits)))
        return [step for step, _ in zip(ready, range(free), strict=False)]

    def _there(self, address: str) -> bool:
        if address not in self.plan.steps:
            return True
        return address in self.outcomes and self.outcomes[address].how not in ("failed", "not run")

    def _submit(self, step: Step) -> None:
        future = _task(step, self).submit()
        self.futures[step.address] = future
        future.add_done_callback(lambda _: self.done.put(step.address))

    def work(self, step: Step) -> Outcome:
        """In a thread of Prefect's: a hit answers at once, all else goes to the pool."""
        remade = any(self.outcomes[n.address].how == "made" for n in step.call.needs if n.address in self.outcomes)
        if step.status == "hit" and not remade and self.plan.store.status(step.address):  # it may have gone since
            return Outcome(step.address, "hit")  # its notes were said at the start
        if objections := step.call.objections:
            return Outcome(step.address, "failed", error="; ".join(objections), bad_input=True)
        try:
            return self.pool.submit(step.call, replace(self.errand, refresh=step.refresh)).result()
        except Exception as error:
            text = f"its worker process died ({type(error).__name__}): killed, or out of memory"
            return Outcome(step.address, "died", error=text)

    def _listen(self, progress: Progress) -> None:
        with suppress(queue.Empty):
            while True:
                progress.event(*self.pool.events.get_nowait())
        try:
            address = self.done.get(timeout=0.1)
        except queue.Empty:
            return
        self.futures.pop(address)
        outcome = self.told.get(address) or Outcome(
            address, "failed", error="Prefect could not run its task; see `rmpipe ui`"
        )
        if outcome.how == "died":
            outcome = replace(outcome, how="failed" if self.pool.killed_at(address) else "not run")
        self.outcomes[address] = outcome
        for note in say_once(self.plan.store, address, outcome.notes):
            progress.say(f"{'made' if outcome.how == 'made' else 'hit '}  {address}: {note}")
        if self.plan.steps[address].status == "run" and outcome.how != "not run":
            progress.finished(outcome)


def _task(step: Step, conductor: Conductor) -> Any:
    """A stage's call as a Prefect task, with its name, tags and state."""
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.states import Completed

    def run() -> Any:
        outcome = conductor.told[step.address] = conductor.work(step)
        if outcome.how in ("failed", "died"):
            raise StageFailedError(outcome, step.call.title)
        name = "Completed" if outcome.how == "made" else "Cached"
        return Completed(name=name, message=f"{step.address} {outcome.how}")

    retries = 2 if step.call.stage.retry else 0
    decorate: Any = task  # its overloads do not know NO_CACHE
    return decorate(
        run,
        name=step.call.stage.name,
        task_run_name=f"{step.call.title} ({step.address.split('/')[1]})",
        tags=[f"{key}={value}" for key, value in step.call.labels.items()],
        cache_policy=NO_CACHE,
        retries=retries,
        retry_delay_seconds=5,
        retry_condition_fn=lambda task, task_run, state: _worth_retrying(state),
    )


def _worth_retrying(state: Any) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, StageFailedError) and error.outcome.again


def _in_prefect(leader: Conductor) -> None:
    """Play a plan as a flow run that is named after the study."""
    store = leader.plan.store
    with using(store.home):
        from prefect import flow
        from prefect.task_runners import ThreadPoolTaskRunner

        study = leader.inquiry.study
        runner: Any = ThreadPoolTaskRunner(max_workers=2 * leader.manner.jobs + 2)

        @flow(name=study.flow, flow_run_name=study.name, task_runner=runner)
        def inquiry() -> str:
            with under_way(store.home, study.name, server_of(store.home)) as say:
                leader.perform(say)
            return study.name

        inquiry()
