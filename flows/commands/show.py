"""what an artifact holds"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from flows.commands import DONE, names_artifact, tell


def arguments(parser: ArgumentParser) -> None:
    """An address."""
    names_artifact(parser)


def command(options: Namespace) -> int:
    """Print an artifact's numbers, files and first rows."""
    from rmpipe.artifact import open_artifact
    from rmpipe.store import Store

    store = Store()
    artifact = open_artifact(store.resolve(options.address), store.home)
    files = {name: entry["size"] for name, entry in artifact.record["files"].items()}
    told: dict[str, Any] = {"address": artifact.address, "path": str(artifact.path), "files": files}
    told |= {name: artifact.record[name] for name in ("kind", "summary", "metrics")}
    lines = [repr(artifact), f"  {artifact.path}"]
    lines += [f"  {value:>14.4f}  {name}" for name, value in told["metrics"].items()]
    lines += [f"  {size:>14,}  {name}" for name, size in files.items()]
    if not options.json and artifact.main and artifact.built:
        lines += ["", artifact.table().head(8).to_string(max_colwidth=48)]
    tell(options, told, "\n".join(lines))
    return DONE
