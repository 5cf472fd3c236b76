"""The flow runs that Prefect remembers: which can go, and their end.

Starting Prefect's server takes seconds, so its database is looked into beforehand; only Prefect itself writes there. A
server that PREFECT_API_URL names may be others' too: what it holds stays.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from rmpipe.garbage import Piece

PATIENCE = 30.0  # seconds
ENDED = "SELECT id, name, end_time FROM flow_run WHERE state_type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')"


def database(home: Path) -> Path:
    """Prefect's, of a store."""
    return home / "prefect" / "prefect.db"


def ended(home: Path, studies: Collection[str], before: float) -> tuple[list[Piece], str]:
    """The flow runs that can go, with their tasks, logs and artifacts, and what a person should know.

    Args:
        home: the folder with all state.
        studies: names of studies whose newest flow run stays.
        before: seconds since the epoch; what has ended since then stays.
    """
    if os.environ.get("PREFECT_API_URL") or not database(home).exists():
        return [], ""
    try:
        runs = _runs(database(home))
    except sqlite3.Error as error:  # half-made by a server that was killed at its first start, say
        return [], f"Prefect's flow runs stay: {database(home)} cannot be read ({error}); `rmpipe doctor` looks at it"
    newest = {name: key for key, name, _ in runs if name in studies}
    found = [
        Piece("Prefect", "flow runs", str(UUID(key)))
        for key, name, end in runs
        if newest.get(name) != key and end and _seconds(end) < before
    ]
    return found, ""


def _runs(file: Path) -> list[tuple[str, str, str | None]]:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(f"{ENDED} ORDER BY end_time").fetchall()


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def forget(home: Path, runs: list[Piece]) -> list[Piece]:
    """Delete flow runs and, first, their artifacts, which Prefect would keep; those that were."""
    from flows.server import using

    with using(home):
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            for run in runs:
                _forget(client, UUID(run.name))
            _await_logs(client, [UUID(run.name) for run in runs])
    return runs


def _forget(client: Any, run: UUID) -> None:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
    from prefect.exceptions import ObjectNotFound

    its = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    while found := client.read_artifacts(artifact_filter=its):
        for artifact in found:
            client.delete_artifact(artifact.id)
    with suppress(ObjectNotFound):  # Prefect's own retention was here first
        client.delete_flow_run(run)


def _await_logs(client: Any, runs: list[UUID]) -> None:
    """Prefect deletes the logs of a run a moment later, and its server, once we let go of it, may be gone by then."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    its = LogFilter(flow_run_id=LogFilterFlowRunId(any_=runs))
    end = time.monotonic() + PATIENCE
    while client.read_logs(its, limit=1) and time.monotonic() < end:
        time.sleep(0.1)
