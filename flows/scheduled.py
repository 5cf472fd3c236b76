"""A study as a flow of Prefect's that a schedule, a worker or a click starts: `flows.scheduled.teach`, say.

There is one for each question, under its name, so that Prefect lists runs by question; they do the same. Scheduled
runs of one store wait for each other; a run that finds every stage in the store makes nothing, and says so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows.artifacts import leave_artifacts
from flows.conduct import Manner, conductor
from flows.inquiry import inquire, ran
from flows.runs import supersede, under_way
from flows.server import server_of


def _name() -> str:
    return Path(flow_run.get_parameters()["study"]).stem


def _asking(question: str, words: str) -> Flow[..., State[Any]]:
    """The flow of a question, by the name under which Prefect imports it from here."""

    def run(
        study: str,
        changes: list[str] | None = None,
        only: list[str] | None = None,
        jobs: int | None = None,
        threads: int = 1,
        keep_going: bool = False,
        strict: bool = False,
    ) -> State[Any]:
        """Makes the stages of a study that are not in the store.

        Args:
            study: the name of a shipped study, or a TOML file.
            changes: `a.b=value` each, as after `--set`.
            only: stages to stop after, as after `--only`.
            jobs: stages at a time; as many as there are cores by default.
            threads: threads a stage.
            keep_going: after a failure, still make what does not need the stage that failed.
            strict: take no hit whose code or inputs have changed.
        """
        return _run(study, changes or [], only or [], Manner(jobs or _cores(), threads, keep_going), strict)

    run.__name__ = run.__qualname__ = question
    run.__doc__ = f"{words} {run.__doc__}"
    return flow(name=question, flow_run_name=_name, validate_parameters=True)(run)


teach = _asking("teach", "Which reward model teaches a policy best?")
generalise = _asking("generalise", "Which reward model survives a shift?")
displace = _asking("displace", "Which preference pairs push the preferred response away?")
vanish = _asking("vanish", "Where does the gradient of a reward vanish, and what cures it?")


def _cores() -> int:
    return os.cpu_count() or 1


def _run(study: str, changes: list[str], only: list[str], manner: Manner, strict: bool) -> State[Any]:
    from rmpipe.store import Store

    store = Store()
    os.environ["RMPIPE_TASK"] = f"a scheduled run of {study}"
    with (
        under_way(store.home, study, server_of(store.home)) as say,
        store.lock("schedule", waiting=lambda holder: say(_waiting(holder))),
    ):
        supersede()
        inquiry = inquire(study, changes, only=only, strict=strict)
        if not inquiry.plan.to_run:
            inquiry.recall()
            leave_artifacts(inquiry.report)
            return Completed(message=inquiry.nothing_to_run)
        inquiry.check_sources()
        with conductor(inquiry, manner) as leader:
            leader.perform(say)
    return Completed(message=ran(leader.summary()))


def _waiting(holder: dict[str, Any]) -> str:
    return f"waiting for {holder['command'] or 'another run'} (process {holder['pid']}, since {holder['since']})"
