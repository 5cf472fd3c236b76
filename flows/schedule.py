"""Schedules: deployments of Prefect's, one a study, that a process of ours serves or the workers of a pool run."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from flows.runs import flow_runs
from flows.server import using
from rmpipe.config import StudyError, digest, nearest
from rmpipe.journal import SERVED, Journal
from rmpipe.lock import held

TAG = "rmpipe"
POLL = 5.0
"""Seconds between two looks for a run that is due."""


@dataclass(frozen=True)
class Schedule:
    """A study that is run again and again.

    Args:
        name: what it is called; the study's name unless another is given.
        question: the flow that answers it.
        parameters: of its flow in `flows.scheduled`.
        cron: five fields, in the time zone.
        every: the time between two runs, instead.
        timezone: as IANA calls it; the machine's by default.
        pool: the work pool whose workers run it; None when a process of ours serves it.
    """

    name: str
    question: str
    parameters: dict[str, Any]
    cron: str | None = None
    every: timedelta | None = None
    timezone: str | None = None
    pool: str | None = None

    def timing(self) -> Any:
        """As Prefect has it.

        Raises:
            StudyError: it is none that Prefect knows.
        """
        from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
        from pydantic import ValidationError
        from tzlocal import get_localzone_name

        zone = self.timezone or get_localzone_name()
        if zone not in available_timezones():
            raise StudyError(f"--timezone {zone}: no such time zone; give one such as Europe/Berlin")
        if self.every == timedelta():
            raise StudyError("--every: a time above 0, such as 30m or 6h")
        try:
            if self.every:
                return IntervalSchedule(interval=self.every, anchor_date=datetime.now().astimezone(), timezone=zone)
            return CronSchedule(cron=str(self.cron), timezone=zone)
        except ValidationError as error:
            remedy = 'give minute, hour, day, month and weekday, as in --cron "0 3 * * *"'
            raise StudyError(f"--cron {self.cron}: Prefect knows no such time; {remedy}") from error

    def deployment(self, home: Path) -> Any:
        """As Prefect registers it for a pool: workers import our flow by its name, wherever we are installed."""
        from prefect.deployments.runner import EntrypointType

        return _flow(self.question).to_deployment(
            self.name, schedule=self.timing(), parameters=self.parameters, tags=[TAG, owner(home)],
            work_pool_name=self.pool, job_variables={"env": {"RMPIPE_HOME": str(home)}},
            entrypoint_type=EntrypointType.MODULE_PATH,
        )  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """A schedule as it stands in Prefect."""

    name: str
    study: str
    when: str
    state: str
    next: str = ""
    last: str = ""
    said: str = ""
    changes: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


def owner(home: Path) -> str:
    """The tag of a store's schedules: a server may have those of several."""
    return f"store-{digest([platform.node(), str(home)])}"


def _check_free(home: Path, schedule: Schedule) -> None:
    """Refuse a name that another store's schedule has at this server, or that a process serves."""
    for item in _deployments():
        if item.name == schedule.name and owner(home) not in item.tags:
            raise StudyError(f"{schedule.name}: another store has a schedule of this name; say --name")
    _check_not_served(home, schedule.name)


def _check_not_served(home: Path, name: str) -> None:
    if held(_serving(home, name)):
        told = json.loads(_serving(home, name).read_text())
        raise StudyError(f"{name}: process {told['pid']} serves it; end that first, or take another --name")


def _serving(home: Path, name: str) -> Path:
    """The file of the journal that is held while a schedule is served."""
    return home / "journal" / SERVED / f"{digest(name)}.json"


def _flow(question: str) -> Any:
    """The flow of a question.

    Raises:
        StudyError: Prefect has none of it.
    """
    from flows import scheduled

    if not hasattr(scheduled, question):
        raise StudyError(f"flow: {question!r} has no flow in {scheduled.__file__}, so it cannot be scheduled; run it")
    return getattr(scheduled, question)


def register(home: Path, schedule: Schedule) -> None:
    """Leave a schedule to the workers of its pool.

    Raises:
        StudyError: there is no such pool at this server.
    """
    from prefect.client.orchestration import get_client

    with using(home):
        _check_free(home, schedule)
        with get_client(sync_client=True) as client:
            known = [pool.name for pool in client.read_work_pools()]
        if schedule.pool not in known:
            near = nearest(str(schedule.pool), known)
            raise StudyError(f"--pool {schedule.pool}: no such work pool; {near}; or: prefect work-pool create")
        schedule.deployment(home).apply()


def serve(home: Path, schedules: list[Schedule]) -> None:
    """Register schedules, and run them as they come due, one run at a time, until interrupted; then they are paused."""
    from prefect.exceptions import ObjectNotFound
    from prefect.runner import Runner

    os.environ["RMPIPE_HOME"] = str(home)  # the runs are processes of their own
    runner = Runner(name="rmpipe", limit=1, pause_on_shutdown=True, query_seconds=POLL)
    with ExitStack() as stack:
        for schedule in schedules:
            _check_free(home, schedule)
            told = {"pid": os.getpid(), "study": schedule.name}
            stack.enter_context(Journal(home).under_way(SERVED, _serving(home, schedule.name).stem, told))
        with suppress(ObjectNotFound):  # somebody has removed what would now be paused
            asyncio.run(_until_told(home, runner, schedules))


async def _until_told(home: Path, runner: Any, schedules: list[Schedule]) -> None:
    """Serve until SIGINT or SIGTERM; then the run under way is ended in order, which the runner itself would not do."""
    for schedule in schedules:
        await runner.aadd_flow(
            _flow(schedule.question), schedule.name, schedule=schedule.timing(),
            parameters=schedule.parameters, tags=[TAG, owner(home)], paused=False,
        )  # fmt: skip
    serving, told = asyncio.create_task(runner.start()), asyncio.Event()
    while not (runner.started or serving.done()):
        await asyncio.sleep(0.05)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)  # after the runner has set its own
    await asyncio.wait((serving, asyncio.create_task(told.wait())), return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        await runner.astop()
    await serving


def registered(home: Path) -> list[Schedule]:
    """The schedules of a store that a process of ours served before; those of work pools are their workers'."""
    with using(home):
        return [_read(item) for item in _deployments() if owner(home) in item.tags and not item.work_pool_name]


def listed(home: Path) -> list[Listed]:
    """Every schedule, with its next run and what became of its last."""
    with using(home):
        return [_listed(item, home) for item in _deployments()]


def remove(home: Path, name: str) -> None:
    """Take a schedule away; what its runs made stays.

    Raises:
        StudyError: there is none of this name, or a process serves it.
    """
    from prefect.client.orchestration import get_client

    with using(home):
        found = {item.name: item.id for item in _deployments()}
        if name not in found:
            raise StudyError(f"--remove {name}: no such schedule; {nearest(name, list(found))}")
        _check_not_served(home, name)
        with get_client(sync_client=True) as client:
            client.delete_deployment(found[name])


def _deployments() -> list[Any]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    with get_client(sync_client=True) as client:
        ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
        return sorted(client.read_deployments(deployment_filter=ours), key=lambda item: item.name)


def _read(item: Any) -> Schedule:
    """A schedule as it was registered."""
    timing = item.schedules[0].schedule if item.schedules else None
    told = {"cron": getattr(timing, "cron", None), "every": getattr(timing, "interval", None)}
    question = str(item.entrypoint or "").rpartition(":" if ":" in str(item.entrypoint) else ".")[2]
    zone = getattr(timing, "timezone", None)
    return Schedule(item.name, question, item.parameters, **told, timezone=zone, pool=item.work_pool_name)


def _state(item: Any, home: Path) -> str:
    if item.work_pool_name:
        return f"pool {item.work_pool_name}"
    if owner(home) not in item.tags:
        return "another store's"
    return "served" if held(_serving(home, item.name)) else "not served"


def _listed(item: Any, home: Path) -> Listed:
    schedule = _read(item)
    when = (
        f"{schedule.cron} {schedule.timezone}" if schedule.cron else f"every {_spoken(schedule.every or timedelta())}"
    )
    state = _state(item, home)
    ahead = _first(item, ("SCHEDULED",), "EXPECTED_START_TIME_ASC", after=datetime.now().astimezone())
    past = _first(item, ("COMPLETED", "FAILED", "CRASHED", "CANCELLED", "RUNNING"), "EXPECTED_START_TIME_DESC")
    told: dict[str, str] = {}
    if ahead and state != "not served":
        told["next"] = _clock(ahead[0].expected_start_time)
    if past:
        told["last"] = f"{past[0].state_name} {_clock(past[0].start_time or past[0].expected_start_time)}"
        told["said"] = (past[0].state.message or "") if past[0].state else ""
    return Listed(
        item.name, item.parameters["study"], when, state, changes=item.parameters.get("changes") or [], **told
    )


def _first(item: Any, states: Iterable[str], order: str, after: datetime | None = None) -> list[Any]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        return flow_runs(client, states, deployment=item.id, after=after, sort=FlowRunSort(order), limit=1)


def _spoken(time: timedelta) -> str:
    """As `--every` takes it: `1d12h`."""
    minutes, seconds = divmod(int(time.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return "".join(
        f"{count}{unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")) if count
    )


def _clock(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
