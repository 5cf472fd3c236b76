"""How long MLflow remembers: what registered versions point at, which rows can go, and their end.

A row stays as long as the address it is about. An invocation of a study stays while a run that it made stays. What ends
is gone for good, with its files; what a person has deleted in MLflow stays in its trash. Of data sets MLflow keeps the
names. A database that others may share is only read.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from rmpipe.config import first_line
from rmpipe.garbage import Piece, weight
from rmpipe.journal import MODELS
from rmpipe.lineage import Ledger
from rmpipe.registry import every

KIND = "MLflow"
ALL = 3  # ViewType.ALL: deleted rows are only hidden, and one of ours that is hidden has yet to end
AUTOMATIC = re.compile(r"seed-\d+")
"""The alias that the newest version of each seed has, without anybody's asking."""
COPIED = re.compile(r"models:/[^/]+/.+")
"""The source of a version that a person has copied from another: it has the tags of that one."""
TAG = "rmpipe.address"


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    """Let a person read what MLflow refuses, and what to do about it."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("mlflow."):  # the class itself is imported by the lineage alone
            raise
        remedy = "what has not gone stays, and the next `rmpipe tidy` goes on; `rmpipe doctor` looks at the database"
        raise RuntimeError(f"MLflow refused: {first_line(error)}; {remedy}") from error


def exists(ledger: Ledger) -> bool:
    """Whether there is anything to ask MLflow about: looking would make a database, and takes seconds."""
    return not _owns(ledger) or _file(ledger).exists()


def _file(ledger: Ledger) -> Path:
    return ledger.home / "mlflow.db"


def _owns(ledger: Ledger) -> bool:
    return ledger.uri == f"sqlite:///{_file(ledger)}"


@_in_a_sentence()
def registered(ledger: Ledger, before: float, *, automatic: bool = True) -> set[str]:
    """The addresses of all registered versions, but for those that go themselves once nothing else needs their address.

    Args:
        ledger: MLflow on a store.
        before: seconds since the epoch; a version that was made since then stays.
        automatic: whether the alias counts that each newest version of a seed has, `seed-1`.
    """
    crowned = {model.name: _crowned(model, automatic) for model in every(ledger.client.search_registered_models)}
    found = set[str]()
    for version in every(ledger.client.search_model_versions):
        if not _owns(ledger) or not _can_end(version, crowned[version.name], before):
            found |= _about(version, ledger)
    return found


def _crowned(model: Any, automatic: bool) -> set[str]:
    """The versions of a registered model that have an alias."""
    return {str(number) for word, number in model.aliases.items() if automatic or not AUTOMATIC.fullmatch(word)}


def _can_end(version: Any, crowned: set[str], before: float) -> bool:
    """Whether a registered version is one of ours without an alias, and old enough; by hand a person makes others."""
    ours = TAG in version.tags and not COPIED.fullmatch(version.source or "")
    return ours and str(version.version) not in crowned and version.creation_timestamp < before * 1000


def _about(version: Any, ledger: Ledger) -> set[str]:
    """The addresses that a registered version is about: its tag, its run's, its model's, and the place that it names.

    What a person registers has no tag of ours, but may have any of the rest.
    """
    if TAG in version.tags:
        return {version.tags[TAG]}
    client, source, found = ledger.client, version.source or "", set()
    if version.run_id:
        found.add(_found(lambda: client.get_run(version.run_id).data.tags.get(TAG)))
    if COPIED.fullmatch(source):
        source = _found(lambda: client.get_model_version_download_uri(version.name, version.version))
    elif model_id := version.model_id or (source.startswith("models:/") and source.removeprefix("models:/")):
        found.add(_found(lambda: client.get_logged_model(model_id).tags.get(TAG)))
    if place := _within(source, ledger.home / "store"):
        found.add("/".join(place.parts[:2]))
    return found - {""}


def _found(look: Callable[[], str | None]) -> str:
    """What MLflow knows of something, or nothing where that is gone; any other refusal must not let anything go."""
    try:
        return look() or ""
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""


def _within(uri: str, folder: Path) -> Path | None:
    """A place relative to a folder, by its name or by where links lead; None when it lies elsewhere."""
    named = unquote(urlparse(uri).path)
    for real in (os.path.abspath, os.path.realpath) if named else ():
        place, base = Path(real(named)), Path(real(folder))
        if place.is_relative_to(base):
            return place.relative_to(base)
    return None


# -- what can go ------------------------------------------------------------------------------------------------------


@_in_a_sentence()
def rows(
    ledger: Ledger, kept: Collection[str], studies: Collection[str], before: float, *, automatic: bool = True
) -> tuple[list[Piece], str]:
    """Every row that can go.

    Args:
        ledger: MLflow on a store.
        kept: the addresses that stay.
        studies: names of studies whose newest invocation stays.
        before: seconds since the epoch; what began since then stays.
        automatic: as `registered` takes it.

    Returns:
        the rows with the bytes of their files, and what a person should know.
    """
    if not _owns(ledger):
        return [], f"MLflow's rows stay: {ledger.uri} is not this store's alone"
    experiments = [each.experiment_id for each in every(ledger.client.search_experiments, view_type=ALL)]
    runs = list(every(ledger.client.search_runs, experiment_ids=experiments, run_view_type=ALL))
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
    for model in every(ledger.client.search_logged_models, experiment_ids=experiments):
        address = model.tags.get("rmpipe.address", "")
        old = model.creation_timestamp < before * 1000
        if address and address not in kept and old and _within(model.artifact_location, ledger.home):
            yield Piece(KIND, "models", model.model_id, 0, address)


def _registered(ledger: Ledger, kept: Collection[str], before: float, automatic: bool) -> Iterator[Piece]:
    """Versions without an alias whose address goes, and registered models of which no version is left."""
    versions = defaultdict(list)
    for version in every(ledger.client.search_model_versions):
        versions[version.name].append(version)
    for model in every(ledger.client.search_registered_models):
        crowned = _crowned(model, automatic)
        mine = versions[model.name]
        gone = [each for each in mine if _can_end(each, crowned, before) and each.tags[TAG] not in kept]
        yield from (Piece(KIND, "versions", f"{model.name}/{each.version}", 0, each.tags[TAG]) for each in gone)
        if len(gone) == len(mine) and _named_by_us(model.name) and model.creation_timestamp < before * 1000:
            yield Piece(KIND, "registered models", model.name)


def _named_by_us(name: str) -> bool:
    return any(f"{mark}{kind}{mark}" in name for kind in MODELS.values() for mark in "-.")  # dots: of older stores


# -- going ------------------------------------------------------------------------------------------------------------


@_in_a_sentence()
def drop(ledger: Ledger, pieces: Iterable[Piece], *, automatic: bool = True) -> list[Piece]:
    """End rows for good; those that were.

    What is registered goes first, so that nobody loads what is no more, and the runs last: a run that is still there
    has the next tidying end what this one did not.

    Args:
        ledger: MLflow on a store.
        pieces: as `rows` gave them.
        automatic: as `registered` takes it.
    """
    by = defaultdict(list)
    for piece in pieces:
        by[piece.of].append(piece)
    ended = _drop_registered(ledger.client, by["versions"], by["registered models"], automatic)
    runs = [*by["runs"], *by["invocations of studies"]]
    _end(ledger, [piece.name for piece in by["models"]], [piece.name for piece in runs])
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


def _end(ledger: Ledger, models: list[str], runs: list[str]) -> None:
    """End logged models and runs for good, each after its files: one of which only the files are gone is found again.

    Only MLflow's store itself can do it. What MLflow offers for it, `mlflow gc`, and the store's methods behind that
    are the same, but the command also ends all experiments and logged models in a person's trash.
    """
    store = ledger.client._tracking_client.store
    for key in models:
        _clear(store.get_logged_model(key, allow_deleted=True).artifact_location, key, ledger.home)
        store._hard_delete_logged_model(key)
    for key in runs:
        _clear(store.get_run(key).info.artifact_uri, key, ledger.home)
        store._hard_delete_run(key)


def _clear(uri: str, key: str, home: Path) -> None:
    """Remove the files of a run or a logged model, below the home alone and where its own id is part of the place."""
    place = _within(uri, home)
    if place and key in place.parts:
        with suppress(FileNotFoundError):
            shutil.rmtree(home / place)
        with suppress(OSError):  # something of a person's is beside them, or nothing ever was there
            (home / place).parent.rmdir()
