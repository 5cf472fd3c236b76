"""Running a plan: Prefect calls the stages in their order, side by side where they do not need each other.

A flow function is read once, inside `planning()`; what `plan` prints is what is run here. Prefect's own result cache is
not used: it answers without looking whether files are there and whole, so each task asks the store, and a hit is shown
in Prefect as `Cached`.
"""

from __future__ import annotations

import fcntl
import os
import queue
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from flows.progress import Progress, hit_notes, say_once, whisper
from rmpipe.artifact import Report
from rmpipe.interval import Estimate
from rmpipe.lineage import Ledger
from rmpipe.store import Store
from tasks.execution import Errand, Outcome, Pool
from tasks.stage import Plan, Step


class StageFailedError(RuntimeError):
    """A stage raised; the message is its title, address and last error line."""

    def __init__(self, outcome: Outcome, title: str):
        super().__init__(f"{title} ({outcome.address}): {outcome.error}")
        self.outcome = outcome


def conduct(
    plan: Plan, report: Report, *, question: str, study: str, jobs: int, threads: int = 1
) -> list[dict[str, Any]]:  # fmt: skip
    """Make everything a plan asks for.

    Args:
        plan: what to make, from `planning()`.
        report: what it ends in; when it is made, it is left in Prefect and in MLflow.
        question: the flow's name in Prefect.
        study: the study's name.
        jobs: how many stages at a time, at most, each in a process of its own.
        threads: how many threads each of these computes with.

    Returns:
        what became of each step, as `plan_summary` says it.

    Raises:
        StoreError: the store cannot be written, or its disk is full; said before anything is begun.
        StageFailedError: a stage raised; those that need it did not run, the others that had begun were finished.
        KeyboardInterrupt: Ctrl-C; no process, lock or half-written artifact is left.
    """
    store, ledger = plan.store, Ledger(plan.store.home)
    store.check_writable()
    jobs = min(jobs, len(plan.to_run))
    whisper(f"{len(plan.to_run)} of {len(plan.steps)} stages to run, {jobs} at a time; starting Prefect and MLflow ...")
    pool, outcomes = Pool(store, jobs, threads), dict[str, Outcome]()
    whole, parent = False, ""
    try:
        pool.warm({step.call.stage.module for step in plan.to_run})
        ledger.prepare()
        parent = ledger.open_study(study, question)
        conductor = Conductor(plan, pool, Errand(study, parent, plan.strict), jobs, outcomes)
        _in_prefect(conductor, report, question, study)
        whole = True
    finally:
        pool.close(at_once=not whole)
        made = plan_summary(plan, outcomes)
        if parent:
            ledger.close_study(parent, made, "FINISHED" if whole else "FAILED", report if whole else None)
    return made


def plan_summary(plan: Plan, outcomes: dict[str, Outcome] | None = None) -> list[dict[str, Any]]:
    """Every address of an invocation with what became of it: `hit`, `made`, `taken`, `failed` or `not run`."""
    outcomes = outcomes or {}
    how = {address: outcome.how for address, outcome in outcomes.items()}
    rest = {step.address: "hit" if step.status == "hit" else "not run" for step in plan.steps.values()}
    return [
        {
            "stage": step.call.stage.name,
            "title": step.call.title,
            "address": address,
            "status": how.get(address, rest[address]),
        }
        for address, step in plan.steps.items()
    ]


class Conductor:
    """Submits each step once all it needs is there.

    Args:
        outcomes: filled as steps end, by address.
    """

    def __init__(self, plan: Plan, pool: Pool, errand: Errand, jobs: int, outcomes: dict[str, Outcome]):
        self.plan, self.pool, self.errand, self.jobs, self.outcomes = plan, pool, errand, jobs, outcomes
        self.done: queue.Queue[str] = queue.Queue()
        self.futures: dict[str, Any] = {}
        self.told: dict[str, Outcome] = {}

    def play(self) -> None:
        """Inside a Prefect flow: run every step to its end, or until one fails."""
        try:
            self._play()
        except BaseException:
            self.pool.close(at_once=True)  # first of all: Prefect waits for its threads, and they for the workers
            raise

    def _play(self) -> None:
        waiting = dict(self.plan.steps)
        with Progress(self.plan, self.jobs) as progress:
            for text in hit_notes(self.plan):
                progress.say(text)
            while waiting or self.futures:
                failed = sorted(
                    (outcome for outcome in self.outcomes.values() if outcome.how in ("failed", "not run")),
                    key=lambda outcome: outcome.how,  # what failed before what merely waited for a worker that died
                )
                if failed and not self.futures:
                    first = failed[0]
                    raise StageFailedError(first, self.plan.steps[first.address].call.title)
                for step in [] if failed else self._ready(waiting):
                    self._submit(waiting.pop(step.address))
                self._listen(progress)

    def _ready(self, waiting: dict[str, Step]) -> list[Step]:
        free = 2 * self.jobs + 2 - len(self.futures)  # a few in the queue, so that no worker idles
        ready = (s for s in waiting.values() if all(self._there(need.address) for need in s.call.needs))
        return [step for step, _ in zip(ready, range(free), strict=False)]

    def _there(self, address: str) -> bool:
        return address in self.outcomes or address not in self.plan.steps

    def _submit(self, step: Step) -> None:
        future = _task(step, self).submit()
        self.futures[step.address] = future
        future.add_done_callback(lambda _: self.done.put(step.address))

    def work(self, step: Step) -> Outcome:
        """In a thread of Prefect's: a hit answers at once, all else goes to the pool."""
        remade = any(self.outcomes[n.address].how == "made" for n in step.call.needs if n.address in self.outcomes)
        if step.status == "hit" and not remade:
            return Outcome(step.address, "hit")  # its notes were said at the start
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


def _in_prefect(conductor: Conductor, report: Report, question: str, study: str) -> None:
    store = conductor.plan.store
    _settings(store)
    from prefect import flow
    from prefect.task_runners import ThreadPoolTaskRunner

    with _first_start(store) as started:
        runner: Any = ThreadPoolTaskRunner(max_workers=2 * conductor.jobs + 2)

        @flow(name=question, flow_run_name=study, task_runner=runner)
        def inquiry() -> str:
            started()
            conductor.play()
            leave_artifacts(report)
            return study

        inquiry()


def _settings(store: Store) -> None:
    """Prefect's state below our home, quiet, without telemetry; a server the user names is left as it is."""
    defaults = {
        "PREFECT_HOME": str(store.home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",  # of services that an interrupt cuts off
        "DO_NOT_TRACK": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextmanager
def _first_start(store: Store) -> Iterator[Callable[[], None]]:
    """One process at a time starts Prefect's server on this store: two would race in migrating its database.

    The server is started with SIGINT blocked, which it inherits: Ctrl-C goes to every process in the foreground, and it
    must live on to be told that its flow run was interrupted. Prefect ends it by SIGTERM.
    """
    path = store.home / "prefect.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

        def started() -> None:
            fcntl.flock(file, fcntl.LOCK_UN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

        try:
            yield started
        finally:
            started()


def leave_artifacts(report: Report) -> None:
    """The ranking as a table and a link to the report, among Prefect's artifacts of this flow run."""
    if not report.built:  # --only stopped before it
        return
    from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

    ranking = report.inputs["ranking"]
    answer = ranking.answer()
    table = [
        {
            "policy": row["policy"],
            "algorithm": row["algorithm"],
            "rank": row["rank"],
            "reward model": row["reward_model"],
        }
        | {
            name: _shown(row.get(name))
            for name in ("variance", "accuracy_on", "accuracy_off", "proxy_gain", "truth_gain")
        }
        for row in answer["rows"]
    ]
    create_table_artifact(table=table, key="ranking", description=answer["question"])
    create_markdown_artifact(
        markdown="\n\n".join(answer["sentences"]), key="what-it-supports", description="What the ranking supports"
    )
    create_link_artifact(link=report.page.as_uri(), link_text="report.html", key="report", description=str(report.page))


def _shown(number: dict[str, float] | None) -> str:
    return "" if number is None else str(Estimate.of(number))
