"""Flow runs of Prefect's: what they hold for whoever browses them, and that none is left as running."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from rmpipe.artifact import Report
from rmpipe.interval import Estimate
from rmpipe.journal import Journal

KIND = "flow-runs"
NUMBERS = ("variance", "accuracy_on", "accuracy_off", "proxy_gain", "truth_gain")


@contextmanager
def under_way(home: Path, study: str) -> Iterator[Callable[[str], None]]:
    """Inside a flow: journal its run, so that it is closed even if we are killed.

    Args:
        home: the folder with all state.
        study: what is run, for who asks who is at work.

    Yields:
        says a line in the run's log.
    """
    from prefect.logging import get_run_logger
    from prefect.runtime import flow_run

    with Journal(home).under_way(KIND, str(flow_run.get_id()), {"pid": os.getpid(), "study": study}):
        yield get_run_logger().info


def supersede() -> None:
    """Inside a scheduled run: take away what came due before now, since this run finds the data as it is now."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.runtime import deployment

    mine, waits = deployment.get_id(), filters.FlowRunFilterStateType(any_=[StateType.SCHEDULED])
    if mine is None:
        return
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(
            flow_run_filter=filters.FlowRunFilter(
                state=filters.FlowRunFilterState(type=waits),
                expected_start_time=filters.FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
            ),
            deployment_filter=filters.DeploymentFilter(id=filters.DeploymentFilterId(any_=[UUID(mine)])),
        ):
            if run.auto_scheduled:  # what a person asked for is done
                client.delete_flow_run(run.id)


def close_abandoned(home: Path) -> None:
    """Close the flow runs, and their task runs, whose process died without a word."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    for name, _ in Journal(home).abandoned(KIND):
        with get_client(sync_client=True) as client, suppress(ObjectNotFound):  # it may be of another server
            _close(client, client.read_flow_run(UUID(name)))


def close_all() -> None:
    """Close every flow run that Prefect takes for running or about to."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType

    names = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    wanted = filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=names))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=filters.FlowRunFilter(state=wanted)):
            _close(client, run)


def _close(client: Any, run: Any) -> None:
    from prefect.states import Crashed

    state: Any = Crashed(message="its process was killed; what it had finished is in the store")
    if not run.state.is_final():
        client.set_flow_run_state(run.id, state, force=True)
    for task in _open_tasks(client, run.id):
        client.set_task_run_state(task.id, state, force=True)


def _open_tasks(client: Any, flow_run: UUID) -> list[Any]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run])))
    return [task for task in tasks if task.state and not task.state.is_final()]


def leave_artifacts(report: Report) -> None:
    """The ranking as a table and a link to the report, among Prefect's artifacts of this flow run."""
    if not report.built:  # --only stopped before it
        return
    from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

    ranking = report.inputs["ranking"]
    answer = ranking.answer()
    study = re.sub(r"[^a-z0-9]+", "-", answer["study"].lower()).strip("-") or "study"  # all that a key may hold
    table = [_line(row) for row in answer["rows"]]
    create_table_artifact(table=table, key=f"{study}-ranking", description=answer["question"])
    create_markdown_artifact(
        markdown="\n\n".join(answer["sentences"]), key=f"{study}-answer", description="What the ranking supports"
    )
    create_link_artifact(
        link=_link(report), link_text="report.html", key=f"{study}-report", description=str(report.page)
    )


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the ranking as Prefect shows it."""
    line = {name: row[name] for name in ("policy", "algorithm", "rank")} | {"reward model": row["reward_model"]}
    return line | {name.replace("_", " "): _shown(row.get(name)) for name in NUMBERS}


def _link(report: Report) -> str:
    """Where the page opens by a click: the store's own server has it; from another, only the file is known."""
    from flows.server import Place

    ours = Place(report.home).url() == os.environ.get("PREFECT_API_URL")
    return f"/report/{report.address.split('/')[1]}" if ours else report.page.as_uri()


def _shown(number: dict[str, float] | None) -> str:
    return "" if number is None else str(Estimate.of(number))
