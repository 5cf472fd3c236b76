"""where an artifact came from, and what sets it apart from its nearest sibling"""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from typing import Any

from flows.commands import DONE, names_artifact, tell


def arguments(parser: ArgumentParser) -> None:
    """An address."""
    names_artifact(parser)


def command(options: Namespace) -> int:
    """Print an artifact's record, its parents, and what differs from its nearest sibling."""
    from rmpipe.artifact import open_artifact
    from rmpipe.config import StudyError, flatten
    from rmpipe.store import Store

    store = Store()
    artifact = open_artifact(store.resolve(options.address), store.home)
    record = artifact.record
    sibling, differs = store.nearest(record, but=artifact.address) or (None, [])
    parents = dict(record["inputs"])
    with contextlib.suppress(StudyError):  # one of them is gone: their addresses alone
        parents = artifact.inputs
    parents = {name: value for name, value in parents.items() if value}
    told = {"address": artifact.address, "record": record, "nearest": sibling, "differs": differs}
    lines = [
        repr(artifact),
        f"  {record['title']}, made {record['created']} in {record['seconds']} s",
        f"  commit {record['commit'] or 'unknown'}, MLflow run {record['run_id']}",
        *(f"  {name:<24} {_shown(value)}" for name, value in flatten(record["config"]).items()),
        *(f"  from {name}: {_shown(handle)}" for name, handle in parents.items()),
        f"  nearest sibling: {sibling or 'none'}",
        *(f"    {line}" for line in differs),
    ]
    tell(options, told, "\n".join(lines))
    return DONE


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 160 else text[:157] + "..."
