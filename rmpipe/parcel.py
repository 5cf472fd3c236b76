"""A parcel: a plain folder that carries artifacts from one store to another, with the records of all they came from.

    parcel.json                      the manifest: {"format": 1, "asked", "store", "ancestry"}
    store/STAGE/ADDRESS/             an artifact as it lies in a store; its `record.json` has a digest of every file
    ancestry/STAGE/ADDRESS.json      the record of an ancestor whose files are not carried

The manifest names what was asked for, and SHA-256 of every record. A parcel has the shape of a home, so that
`RMPIPE_HOME=PARCEL rmpipe show ADDRESS` looks into it. Nothing in it is trusted before `Parcel.read` has checked it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ConfigDict, ValidationError

from rmpipe.artifact import Artifact, Weights, parents
from rmpipe.config import Config, StudyError, digest, explain
from rmpipe.store import RECORD, Store, StoreError, file_digest, write_whole

FORMAT = 1
"""The form of the parcels that we write, and the latest that we read."""
MANIFEST = "parcel.json"
IDENTITY = ("stage", "version", "config", "inputs")
AGAIN = "have it exported and sent again"
ADDRESS = re.compile(r"[A-Za-z_]\w*/[0-9a-f]{12}")
Record = dict[str, Any]


class Manifest(Config):
    """What a parcel holds: addresses, and SHA-256 of the record of each."""

    format: int = FORMAT
    asked: tuple[str, ...]
    store: dict[str, str]
    ancestry: dict[str, str]


class _Sealed(Config):
    model_config = ConfigDict(extra="allow")
    size: int
    sha256: str


class _Told(Config):
    """What a record tells, as far as it is shown to a person or entered in MLflow."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=True)
    stage: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, Any]
    kind: str
    title: str
    labels: dict[str, str]
    summary: str
    metrics: dict[str, float]
    seconds: float
    created: str
    commit: str | None
    code: dict[str, str]
    read: dict[str, str]
    runtime: dict[str, str]
    content: str
    files: dict[str, _Sealed]


def outside(address: str, home: Path) -> Path | None:
    """The folder, outside of the artifact, that its weights lie in; None when they are in it or come from the hub."""
    handle = Artifact(address, home)
    if (handle.path / "reference.json").exists():
        return Weights(address, home).model
    kind = handle.path / "reward_model.json"
    place = handle.json(kind.name).get("path") if kind.exists() else None
    from_hub = str(handle.record["config"].get("content")).startswith(f"{place}@")
    return Path(place) if place and not from_hub else None


# -- sending ----------------------------------------------------------------------------------------------------------


def pack(store: Store, asked: Iterable[str], folder: Path, *, whole: bool = False) -> tuple[Manifest, list[str]]:
    """Write a parcel.

    Args:
        asked: addresses of artifacts; what a reward model cannot give rewards without goes with it.
        folder: where to; not there yet, or empty.
        whole: carry the files of every ancestor too.

    Returns:
        its manifest, and what a person should know: records that are gone, weights that lie outside of the store.

    Raises:
        StudyError: the folder has something in it, or what should be carried is not in the store.
        StoreError: an artifact was altered, or the folder cannot be written; nothing is left there.
    """
    asked = tuple(dict.fromkeys(asked))
    records, gone = _lineage(store, asked)
    needs = {address: _needs(store, address) for address in asked}
    here = {need for found in needs.values() for need in found if store.record(need)}
    carried = [address for address in records if whole or address in asked or address in here]
    absent = [*(address for address in carried if store.record(address) is None), *(gone if whole else [])]
    if absent:
        raise StudyError(f"{', '.join(absent[:4])}: not in {store.root}, so it cannot be carried; run its study first")
    with _beside(folder) as part:
        Store(part).mark()
        kept = {address: _put(store, address, part) for address in carried}
        told = {address: _write(Artifact(address, part).told, records[address]) for address in records.keys() - kept}
        manifest = Manifest(asked=asked, store=kept, ancestry=dict(sorted(told.items())))
        write_whole(part / MANIFEST, manifest.model_dump_json(indent=1))
    notes = [f"{address}: its record is gone, and the lineage ends there" for address in gone]
    notes += [
        f"{need}: {'goes' if need in here else 'is not here, so cannot go'} with {address}, which cannot score alone"
        for address, found in needs.items() for need in found if need not in asked and not whole
    ]  # fmt: skip
    away = {address: place for address in carried if (place := outside(address, store.home))}
    return manifest, [*notes, *(f"{a}: its weights lie in {place}, and are not carried" for a, place in away.items())]


def _lineage(store: Store, asked: Iterable[str]) -> tuple[dict[str, Record], list[str]]:
    """The records of artifacts and of all they came from, and the addresses of which there is none."""
    records: dict[str, Record] = {}
    gone: list[str] = []
    waiting = list(asked)
    while waiting:
        handle = Artifact(waiting.pop(0), store.home)
        if handle.address in records or handle.address in gone:
            continue
        if handle.built or handle.only_told:
            records[handle.address] = handle.record
            waiting += parents(handle.record["inputs"])
        else:
            gone.append(handle.address)
    return records, gone


def _needs(store: Store, address: str) -> list[str]:
    """What a reward model scores with beside its own files: those it is made of, the base that it is compared with."""
    model = Artifact(address, store.home)
    if not model.built or not (model.path / "reward_model.json").exists():
        return []
    inputs = model.record["inputs"]
    parts = list(inputs.get("components") or [])
    base = [inputs["base"]] if inputs.get("base") and model.json("reward_model.json").get("reference") else []
    return list(dict.fromkeys([*base, *parts, *(need for part in parts for need in _needs(store, part))]))


def _put(store: Store, address: str, part: Path) -> str:
    """Copy an artifact into a parcel; the digest of its record."""
    record, folder = Artifact(address, store.home).record, Store(part).folder(address)
    copy(record, store.folder(address), folder)
    if wrong := altered(record, folder):
        told = f"{address}: altered: {', '.join(wrong)}; the next run of its study makes it again"
        raise StoreError(f"{told}, and `rmpipe verify` names all that is")
    return _write(folder / RECORD, record)


def _write(file: Path, record: Record) -> str:
    text = json.dumps(record, indent=1)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, text)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A hidden sibling that becomes the folder when it is whole; gone on any failure."""
    folder = folder.absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StudyError(f"{folder}: something is there; give a folder that is new or empty")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(folder)
    except OSError as error:
        told = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise StoreError(f"{folder}: cannot be written ({told}); give a folder on a disk with room") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


# -- both -------------------------------------------------------------------------------------------------------------


def copy(record: Record, source: Path, target: Path) -> None:
    """Copy the files that a record names, as far as they are there."""
    target.mkdir(parents=True, exist_ok=True)
    for name in record["files"]:
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def altered(record: Record, folder: Path) -> list[str]:
    """The files that a record names, and that are not in a folder with the bytes they had."""
    there = {name: folder / name for name in record["files"] if (folder / name).is_file()}
    digests = {name: file_digest(file) for name, file in there.items()}
    return [name for name, told in record["files"].items() if digests.get(name) != told["sha256"]]


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parcel:
    """A parcel that was checked whole.

    Attributes:
        records: by address, those of what it carries and of ancestors, each after those it was made from.
    """

    folder: Path
    manifest: Manifest
    records: dict[str, Record]

    @classmethod
    def read(cls, folder: Path) -> Parcel:
        """Check a parcel: its manifest, every record, every file.

        Raises:
            StudyError: it is none, something in it was altered, or it leads out of its folder.
            StoreError: a later rmpipe wrote it, in another form.
        """
        folder = folder.resolve()
        manifest = _manifest(folder)
        found = {address: Store(folder).folder(address) / RECORD for address in manifest.store}
        found |= {address: Artifact(address, folder).told for address in manifest.ancestry}
        digests = manifest.ancestry | manifest.store
        records = {address: _record(address, file, digests[address]) for address, file in found.items()}
        for address in manifest.store:
            _check_files(address, records[address], Store(folder).folder(address))
        try:
            order = list(TopologicalSorter({a: parents(r["inputs"]) for a, r in records.items()}).static_order())
        except CycleError:
            raise StudyError(f"{folder}: an artifact is its own ancestor there; {AGAIN}") from None
        return cls(folder, manifest, {address: records[address] for address in order if address in records})


def _manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    try:
        told = json.loads(_bytes(file))
        if isinstance(told, dict) and isinstance(told.get("format"), int) and told["format"] > FORMAT:
            text = f"{file}: a parcel of format {told['format']}, and this rmpipe reads format {FORMAT}"
            raise StoreError(f"{text}; install a newer rmpipe")
        manifest = Manifest.model_validate(told)
    except FileNotFoundError:
        raise StudyError(f"{folder}: no parcel, it has no {MANIFEST}; give what `rmpipe export` wrote") from None
    except ValidationError as error:
        raise StudyError(f"{file}: {explain(error, Manifest)}; {AGAIN}") from error
    except ValueError as error:
        raise StudyError(f"{file}: altered ({error}); {AGAIN}") from error
    for address in (*manifest.store, *manifest.ancestry, *manifest.asked):
        if not ADDRESS.fullmatch(address):
            raise StudyError(f"{file}: {address!r} is no address; {AGAIN}")
    return manifest


def _record(address: str, file: Path, expected: str) -> Record:
    """A record, once it is what the manifest and its own address say."""
    try:
        text = _bytes(file)
        record = json.loads(text)
        _Told.model_validate(record)
        own = Store.address({name: record[name] for name in IDENTITY})
        content = digest({name: entry["sha256"] for name, entry in record["files"].items()}, 64)
    except FileNotFoundError:
        raise StudyError(f"{file}: missing; {AGAIN}") from None
    except ValidationError as error:
        raise StudyError(f"{file}: {explain(error, _Told)}; {AGAIN}") from error
    except ValueError as error:
        raise error if isinstance(error, StudyError) else StudyError(f"{file}: altered ({error}); {AGAIN}") from error
    if hashlib.sha256(text).hexdigest() != expected:
        raise StudyError(f"{file}: altered; {AGAIN}")
    if (own, content) != (address, record["content"]):
        raise StudyError(f"{file}: tells of {own} with the content {content[:12]}, not of {address}; {AGAIN}")
    if record["kind"] not in Artifact.kinds:
        raise StudyError(f"{file}: {record['kind']}: no such kind of artifact here; install the package that has it")
    return record


def _check_files(address: str, record: Record, folder: Path) -> None:
    for name in record["files"]:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) != name or "\0" in name or name == RECORD:
            raise StudyError(f"{folder / RECORD}: {name!r} is no name of a file of {address}; {AGAIN}")
        _stays(folder / name)
    if wrong := altered(record, folder):
        raise StudyError(f"{folder}: altered: {', '.join(wrong)}; {AGAIN}")


def _bytes(file: Path) -> bytes:
    _stays(file)
    return file.read_bytes()


def _stays(file: Path) -> None:
    """Refuse a file that is reached through a link: it would be somewhere else."""
    if os.path.realpath(file) != str(file):
        raise StudyError(f"{file}: a link; a parcel holds plain files and folders; {AGAIN}")
