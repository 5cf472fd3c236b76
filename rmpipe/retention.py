"""How long MLflow remembers: what aliases point at, which rows can go, and their end.

A row stays as long as the address it is about. An invocation of a study stays while a run that it made stays. What
MLflow deletes is only hidden at first; `mlflow gc` then ends rows and files, and with them the models and experiments
that a person has deleted in MLflow. Of data sets it keeps the names. A database that others may share is only read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from rmpipe.garbage import Piece, weight
from rmpipe.journal import MODELS
from rmpipe.lineage import QUIET, Ledger

KIND = "MLflow"
ALL = 3  # ViewType.ALL: deleted rows are only hidden, and one of ours that is hidden has yet to end
AUTOMATIC = re.compile(r"seed-\d+")
"""The alias that the newest version of each seed has, without anybody's asking."""
AT_ONCE = 1000
"""Ids in one command line."""


def exists(ledger: Ledger) -> bool:
    """Whether there is anything to ask MLflow about: looking would make a database, and takes seconds."""
    return not _owns(ledger) or _file(ledger).exists()


def _file(ledger: Ledger) -> Path:
    return ledger.home / "mlflow.db"


def _owns(ledger: Ledger) -> bool:
    return ledger.uri == f"sqlite:///{_file(ledger)}"


def aliased(ledger: Ledger, *, automatic: bool = True) -> set[str]:
    """The addresses of all registered versions that have an alias.

    Args:
        ledger: MLflow on a store.
        automatic: whether the alias counts that each newest version of a seed has, `seed-1`.
    """
    client, found = ledger.client, set()
    for model in _all(client.search_registered_models):
        for number in _crowned(model, automatic):
            found.add(_address(client.get_model_version(model.name, number), ledger))
    return found - {""}


def _crowned(model: Any, automatic: bool) -> set[str]:
    """The versions of a registered model that have an alias."""
    return {str(number) for word, number in model.aliases.items() if automatic or not AUTOMATIC.fullmatch(word)}


def _address(version: Any, ledger: Ledger) -> str:
    """What a registered version is about: its tag says it, or its model's, or the place that it names."""
    if "rmpipe.address" in version.tags:
        return version.tags["rmpipe.address"]
    if version.model_id:
        return ledger.client.get_logged_model(version.model_id).tags.get("rmpipe.address", "")
    place = _within(version.source or "", ledger.home / "store")
    return "/".join(place.parts[:2]) if place else ""


def _within(uri: str, folder: Path) -> Path | None:
    """A place relative to a folder; None when it lies elsewhere."""
    place = Path(unquote(urlparse(uri).path))
    return place.relative_to(folder) if place.is_relative_to(folder) else None


# -- what can go ------------------------------------------------------------------------------------------------------


def rows(
    ledger: Ledger, kept: Collection[str], studies: Collection[str], before: float, *, automatic: bool = True
) -> tuple[list[Piece], str]:
    """Every row that can go.

    Args:
        ledger: MLflow on a store.
        kept: the addresses that stay.
        studies: names of studies whose newest invocation stays.
        before: seconds since the epoch; what began since then stays.
        automatic: as `aliased` takes it.

    Returns:
        the rows with the bytes of their files, and what a person should know.
    """
    if not _owns(ledger):
        return [], f"MLflow's rows stay: {ledger.uri} is not this store's alone"
    experiments = [each.experiment_id for each in _all(ledger.client.search_experiments, view_type=ALL)]
    runs = list(_all(ledger.client.search_runs, experiment_ids=experiments, run_view_type=ALL))
    invocations = _invocations(runs, kept, studies)
    gone = [run for run in runs if _can_go(run, kept, invocations, before)]
    ours = [run for run in gone if _within(run.info.artifact_uri, ledger.home)]
    far = len(gone) - len(ours)
    note = (
        f"{far} runs of MLflow stay: their files lie outside of {ledger.home}, another store's perhaps" if far else ""
    )
    found = [_run(run, ledger.home) for run in ours]
    found += _models(ledger, experiments, kept, before)
    return [*found, *_registered(ledger, kept, before, automatic)], note


def _run(run: Any, home: Path) -> Piece:
    folder = home / (_within(run.info.artifact_uri, home) or "")
    address = run.data.tags.get("rmpipe.address", "")
    return Piece(KIND, "runs" if address else "invocations of studies", run.info.run_id, weight(folder), address)


def _can_go(run: Any, kept: Collection[str], invocations: set[str], before: float) -> bool:
    tags = run.data.tags
    if run.info.start_time >= before * 1000 or not {"rmpipe.address", "rmpipe.question"} & set(tags):
        return False
    return tags["rmpipe.address"] not in kept if "rmpipe.address" in tags else run.info.run_id not in invocations


def _invocations(runs: list[Any], kept: Collection[str], studies: Collection[str]) -> set[str]:
    """The invocations that stay: those that made a run that stays, and the newest of each study."""
    newest: dict[str, Any] = {}
    for run in sorted(runs, key=lambda run: run.info.start_time):
        if "rmpipe.question" in run.data.tags and run.data.tags["rmpipe.study"] in studies:
            newest[run.data.tags["rmpipe.study"]] = run.info.run_id
    made = {run.data.tags.get("mlflow.parentRunId") for run in runs if run.data.tags.get("rmpipe.address") in kept}
    return made | set(newest.values())


def _models(ledger: Ledger, experiments: list[str], kept: Collection[str], before: float) -> Iterator[Piece]:
    for model in _all(ledger.client.search_logged_models, experiment_ids=experiments):
        address = model.tags.get("rmpipe.address", "")
        old = model.creation_timestamp < before * 1000
        if address and address not in kept and old and _within(model.artifact_location, ledger.home):
            yield Piece(KIND, "models", model.model_id, 0, address)


def _registered(ledger: Ledger, kept: Collection[str], before: float, automatic: bool) -> Iterator[Piece]:
    """Versions without an alias whose address goes, and registered models of which no version is left."""
    versions = defaultdict(list)
    for version in _all(ledger.client.search_model_versions):
        versions[version.name].append(version)
    for model in _all(ledger.client.search_registered_models):
        crowned = _crowned(model, automatic)
        mine = versions[model.name]
        gone = [each for each in mine if str(each.version) not in crowned and _old(each, ledger, kept, before)]
        yield from (Piece(KIND, "versions", f"{model.name}/{each.version}", 0, _address(each, ledger)) for each in gone)
        if len(gone) == len(mine) and _named_by_us(model.name) and model.creation_timestamp < before * 1000:
            yield Piece(KIND, "registered models", model.name)


def _old(version: Any, ledger: Ledger, kept: Collection[str], before: float) -> bool:
    ours = "rmpipe.address" in version.tags
    return ours and _address(version, ledger) not in kept and version.creation_timestamp < before * 1000


def _named_by_us(name: str) -> bool:
    return any(f"{mark}{kind}{mark}" in name for kind in MODELS.values() for mark in "-.")  # dots: of older stores


def _all(search: Callable[..., Any], **asked: Any) -> Iterator[Any]:
    """Everything that a search finds, page by page."""
    page = search(**asked)
    yield from page
    while page.token:
        page = search(**asked, page_token=page.token)
        yield from page


# -- going ------------------------------------------------------------------------------------------------------------


def drop(ledger: Ledger, pieces: Iterable[Piece], *, automatic: bool = True) -> list[Piece]:
    """End rows for good; those that were.

    What is registered goes first, so that nobody loads what is no more, and the runs last: a run that is still there
    has the next tidying end what this one did not.

    Args:
        ledger: MLflow on a store.
        pieces: as `rows` gave them.
        automatic: as `aliased` takes it.
    """
    by = defaultdict(list)
    for piece in pieces:
        by[piece.of].append(piece)
    ended = _drop_registered(ledger.client, by["versions"], by["registered models"], automatic)
    for piece in by["models"]:
        ledger.client.delete_logged_model(piece.name)
    runs = [*by["runs"], *by["invocations of studies"]]
    places = [_hide(ledger.client, piece.name) for piece in runs]
    for start in range(0, len(runs), AT_ONCE):
        _end(ledger.uri, [piece.name for piece in runs[start : start + AT_ONCE]])
    for place in places:  # `mlflow gc` takes what is in a run's folder, and leaves the folder
        with suppress(OSError):
            place.parent.rmdir()
    return [*ended, *by["models"], *runs]


def _drop_registered(client: Any, versions: list[Piece], names: list[Piece], automatic: bool) -> list[Piece]:
    """Registered models and versions, unless one was given an alias meanwhile."""
    ended = []
    for piece in versions:
        name, _, number = piece.name.rpartition("/")
        if number not in _crowned(client.get_registered_model(name), automatic):
            client.delete_model_version(name, number)
            ended.append(piece)
    for piece in names:
        if not client.get_registered_model(piece.name).latest_versions:
            client.delete_registered_model(piece.name)
            ended.append(piece)
    return ended


def _hide(client: Any, run_id: str) -> Path:
    """Delete a run as a person would in MLflow; where its files are."""
    run = client.get_run(run_id)
    if run.info.lifecycle_stage != "deleted":
        client.delete_run(run_id)
    return Path(unquote(urlparse(run.info.artifact_uri).path))


def _end(uri: str, run_ids: list[str]) -> None:
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--run-ids", ",".join(run_ids)]
    environment = {**os.environ, **QUIET, "MLFLOW_TRACKING_URI": uri}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-6:])
        raise RuntimeError(f"mlflow gc failed, and the next tidying tries again:\n{last}")
