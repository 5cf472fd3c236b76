"""Flow runs of Prefect's: said to be under way, and closed when their process is gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from rmpipe.journal import Journal

KIND = "flow-runs"


@contextmanager
def under_way(home: Path, study: str, server: str) -> Iterator[Callable[[str], None]]:
    """Inside a flow: journal its run, so that it is closed even if we are killed.

    Args:
        home: the folder with all state.
        study: what is run, for who asks who is at work.
        server: which of Prefect's has it, see `flows.server.server_of`.

    Yields:
        says a line in the run's log.
    """
    from prefect.logging import get_run_logger
    from prefect.runtime import flow_run

    told = {"pid": os.getpid(), "study": study, "server": server}
    with Journal(home).under_way(KIND, str(flow_run.get_id()), told):
        yield get_run_logger().info


def flow_runs(
    client: Any,
    states: Iterable[str],
    *,
    deployment: UUID | None = None,
    before: datetime | None = None,
    after: datetime | None = None,
    **asked: Any,
) -> list[Any]:
    """Flow runs that Prefect has.

    Args:
        client: Prefect's.
        states: types of state, such as `RUNNING`.
        deployment: of this one alone.
        before: expected to start before.
        after: expected to start after.
        asked: `sort` and `limit`, as Prefect takes them.
    """
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType

    types = filters.FlowRunFilterStateType(any_=[StateType(name) for name in states])
    due = filters.FlowRunFilterExpectedStartTime(before_=before, after_=after) if before or after else None
    its = filters.DeploymentFilter(id=filters.DeploymentFilterId(any_=[deployment])) if deployment else None
    wanted = filters.FlowRunFilter(state=filters.FlowRunFilterState(type=types), expected_start_time=due)
    return client.read_flow_runs(flow_run_filter=wanted, deployment_filter=its, **asked)


def supersede() -> None:
    """Inside a scheduled run: take away what came due before now, since this run finds the data as it is now."""
    from prefect.client.orchestration import get_client
    from prefect.runtime import deployment

    mine = deployment.get_id()
    if mine is None:
        return
    with get_client(sync_client=True) as client:
        for run in flow_runs(client, ["SCHEDULED"], deployment=UUID(mine), before=datetime.now(UTC)):
            if run.auto_scheduled:  # what a person asked for is done
                client.delete_flow_run(run.id)


def close_abandoned(home: Path, server: str) -> None:
    """Close the flow runs of a server, and their task runs, whose process died without a word."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    for name, _ in Journal(home).abandoned(KIND, lambda told: told.get("server", "") == server):
        with get_client(sync_client=True) as client, suppress(ObjectNotFound):  # somebody has deleted it
            _close(client, client.read_flow_run(UUID(name)))


def close_all() -> None:
    """Close every flow run that Prefect takes for running or about to."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for run in flow_runs(client, ["RUNNING", "PENDING", "CANCELLING"]):
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
