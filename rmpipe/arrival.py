"""What a parcel brings into a store: artifacts, what is told of their ancestors, and a row of MLflow for each.

An artifact arrives as if it had just been made: under the lock of its address, whole or not at all, its run and its
model those of this store's MLflow. What MLflow does not take is said, and what arrived is whole all the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmpipe.artifact import Artifact, parents
from rmpipe.config import first_line, flatten
from rmpipe.journal import Entry, Execution
from rmpipe.parcel import AGAIN, Parcel, Record, copy, outside
from rmpipe.store import Store, StoreError, write_whole

if TYPE_CHECKING:
    from rmpipe.lineage import Ledger


@dataclass(frozen=True)
class Arrival:
    """What became of one address: `arrived`, `there` before, `kept` as this store has it, or `told` without files."""

    address: str
    how: str
    notes: tuple[str, ...] = ()


def take_in(
    parcel: Parcel, store: Store, waiting: Callable[[dict[str, Any]], None] = lambda holder: None
) -> Iterator[Arrival]:
    """Bring what a parcel holds into a store, parents before children, as it is asked for one by one.

    Where the store has an artifact of an address already, its own stands, whichever bytes it has; one that was altered
    is replaced.

    Args:
        waiting: called with the holder of an address, see `Store.lock`.

    Raises:
        StoreError: the store cannot be written, said before anything is; or a file was altered since it was checked.
    """
    store.check_writable()
    ledger, notes = _ledger(store)
    for address, record in parcel.records.items():
        if address in parcel.manifest.store:
            with store.lock(address, waiting):
                arrival = _take(parcel, address, store, ledger)
            yield Arrival(address, arrival.how, notes + arrival.notes)
            notes = ()
        elif not (Artifact(address, store.home).built or Artifact(address, store.home).only_told):
            _tell(Artifact(address, store.home).told, record)
            yield Arrival(address, "told")


def _ledger(store: Store) -> tuple[Ledger | None, tuple[str, ...]]:
    from rmpipe.lineage import Ledger

    ledger = Ledger(store.home)
    try:
        _ = ledger.client
    except RuntimeError as error:
        return None, (f"MLflow will not list what arrives: {first_line(error)}",)
    return ledger, ()


def _tell(file: Path, record: Record) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(_arrived(record), indent=1))


def _arrived(record: Record) -> Record:
    """A record without what holds only for the store it came from: its run and model are of another MLflow."""
    told = {name: value for name, value in record.items() if name not in ("model_id", "altered")}
    return told | {"run_id": None, "imported": {"run_id": record.get("run_id")}}


def _take(parcel: Parcel, address: str, store: Store, ledger: Ledger | None) -> Arrival:
    if ledger and ledger.journal.file(address).exists():  # of a process that died, perhaps once it was in place
        ledger.settle(address)
    incoming, ours = parcel.records[address], store.record(address)
    if ours and store.status(address):
        same = ours["content"] == incoming["content"]
        note = "this store's own stands; the parcel has other bytes of it, made from the same"
        return Arrival(address, "there") if same else Arrival(address, "kept", (note,))
    with store.making(address) as part:
        copy(incoming, Store(parcel.folder).folder(address), part)
        record = _arrived(incoming) | store.seal(part)
        if record["content"] != incoming["content"]:
            raise StoreError(f"{parcel.folder}: {address} was altered while it was read; {AGAIN}")
        notes = _publish(store, part, address, record, ledger)
    return Arrival(address, "arrived", notes + _weights_elsewhere(address, store.home))


def _publish(store: Store, part: Path, address: str, record: Record, ledger: Ledger | None) -> tuple[str, ...]:
    entry, notes = _begin(ledger, address, record) if ledger else (None, ())
    try:
        store.publish(part, address, record)
    except BaseException as error:
        if ledger and entry:
            ledger.fail(entry, f"{type(error).__name__}: {error}", killed=not isinstance(error, Exception))
        raise
    return notes + ledger.enter(entry) if ledger and entry else notes


def _begin(ledger: Ledger, address: str, record: Record) -> tuple[Entry | None, tuple[str, ...]]:
    """Open the run of what arrives, and give its record this run and its model; or what MLflow said instead."""
    entry = None
    try:
        entry = ledger.begin(_execution(address, record, ledger.home))
        ledger.client.set_tag(entry.run_id, "rmpipe.imported", f"made {record['created']}")
        ledger.dress(entry, record, [])
    except BaseException as error:
        killed = not isinstance(error, Exception)
        if entry:
            ledger.fail(entry, first_line(error), killed=killed)
        if killed:
            raise
        # whatever a database or a server may say: the artifact itself is whole
        return None, (f"MLflow does not list it ({first_line(error)})",)
    record["run_id"] = entry.run_id
    return entry, ()


def _execution(address: str, record: Record, home: Path) -> Execution:
    return Execution(
        stage=record["stage"],
        address=address,
        title=record["title"],
        kind=record["kind"],
        params=flatten(record["config"]),
        runtime=record["runtime"],
        study=record.get("study", ""),
        labels=record["labels"],
        inputs=list(_inputs(record, home)),
        parent_run=None,
        surroundings={"commit": record["commit"]},
        subject=_subject(record, home),
    )


def _inputs(record: Record, home: Path) -> Iterator[tuple[str, str, str, str | None]]:
    for name, value in record["inputs"].items():
        for address in parents({name: value}):
            if known := _known(address, home):
                yield name, address, known["kind"], known.get("model_id")


def _subject(record: Record, home: Path) -> str | None:
    """The model id of the reward model that the numbers are about: the teacher, or the one that was measured."""
    inputs = record["inputs"]
    scores = _known(inputs["scores"], home) if inputs.get("scores") else {}
    teacher = inputs.get("teacher") or scores.get("inputs", {}).get("reward_model")
    if teacher is None and record["kind"] == "Measurement":
        teacher = inputs.get("reward_model")
    return _known(teacher, home).get("model_id") if teacher else None


def _known(address: str, home: Path) -> Record:
    handle = Artifact(address, home)
    return handle.record if handle.built or handle.only_told else {}


def _weights_elsewhere(address: str, home: Path) -> tuple[str, ...]:
    place = outside(address, home)
    if place is None or place.exists():
        return ()
    remedy = f"place the same files there, or run its study with --refresh {address.split('/')[0]}"
    return (f"its weights are not in it, and not on this machine in {place}; {remedy}",)
