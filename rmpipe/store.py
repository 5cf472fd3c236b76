"""The store: one folder an artifact, at an address that is a hash of what its stage was told.

An artifact is written into a hidden sibling folder and renamed into place when whole, so a crash leaves nothing at the
address. A lock on the address makes a second process wait and take the first one's artifact; the kernel drops it when
its holder dies. `record.json` beside the data says what was told and what came out, with a digest of every file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rmpipe.artifact import Artifact, open_artifact
from rmpipe.config import StudyError, digest, flatten
from rmpipe.lock import acquire, held

FORMAT = 1
"""The form of the stores that we write. `store.json` tells it; a store without one is of form 1."""
RECORD = "record.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
LEAST = 100 << 20
"""Bytes that must be free before anything is begun: the databases and one small model need as much."""
REMEDY = "free space or set RMPIPE_HOME to a folder you may write"


class StoreError(RuntimeError):
    """The disk is full or the folder may not be written: says where and what to do; nothing half-written is left."""


@dataclass(frozen=True)
class Status:
    """Whether an address can be served: `hit`, `absent`, or `altered` with the files at fault."""

    name: str
    files: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.name == "hit"


class Store:
    """All artifacts below one home folder.

    Args:
        home: `$RMPIPE_HOME`, by default `.rmpipe` in the working folder.

    Raises:
        StoreError: the home, or a folder above it, is a file; or a later rmpipe wrote the store in another form.
    """

    def __init__(self, home: Path | str | None = None):
        self.home = Path(home or os.environ.get("RMPIPE_HOME") or ".rmpipe").absolute()
        self.root = self.home / "store"
        there = next(path for path in (self.home, *self.home.parents) if path.exists())
        if not there.is_dir():
            raise StoreError(f"{there}: a file; set RMPIPE_HOME to a folder you may write, not {self.home}")
        self._check_format()

    def _check_format(self) -> None:
        file = self.home / "store.json"
        try:
            found = int(json.loads(file.read_text())["format"])
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError):
            raise StoreError(f'{file}: tells no format; write {{"format": {FORMAT}}} into it') from None
        if found > FORMAT:
            told = f"{self.home}: a store of format {found}, and this rmpipe reads format {FORMAT}"
            raise StoreError(f"{told}; install a newer rmpipe, or set RMPIPE_HOME to another folder")

    def mark(self) -> None:
        """Write down the form of a store that is about to be written for the first time."""
        if not (self.home / "store.json").exists():
            write_whole(self.home / "store.json", json.dumps({"format": FORMAT}))

    @staticmethod
    def address(identity: dict[str, Any]) -> str:
        """`stage/12 hexadecimal digits` of {"stage", "version", "config", "inputs"}."""
        return f"{identity['stage']}/{digest(identity)}"

    def folder(self, address: str) -> Path:
        """Where the artifact lies, or would."""
        return self.root / address

    def scratch(self, address: str) -> Path:
        """A folder of the address that survives a kill: half-trained checkpoints."""
        return self.home / "scratch" / address.replace("/", "-")

    def record(self, address: str) -> dict[str, Any] | None:
        """The record at an address, whole or altered; None when there is none."""
        try:
            return json.loads((self.folder(address) / RECORD).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except json.JSONDecodeError:
            return {}

    def status(self, address: str) -> Status:
        """Whether the artifact is there and unaltered.

        A file whose size and time of writing are those of the record is taken as it is; any other is hashed.
        `verify` hashes every file.
        """
        record = self.record(address)
        if record is None:
            return Status("absent")
        if not record or record.get("altered"):
            return Status("altered", tuple(record.get("altered", [RECORD])))
        altered = self._altered(address, record, trust_times=True)
        return Status("altered", altered) if altered else Status("hit")

    def _altered(self, address: str, record: dict[str, Any], *, trust_times: bool) -> tuple[str, ...]:
        folder, wrong = self.folder(address), []
        for name, expected in record["files"].items():
            try:
                found = (folder / name).stat()
            except OSError:
                wrong.append(name)
                continue
            same_time = trust_times and found.st_mtime_ns == expected["mtime_ns"]
            if found.st_size != expected["size"] or not (same_time or file_digest(folder / name) == expected["sha256"]):
                wrong.append(name)
        return tuple(wrong)

    def verify(self, address: str) -> tuple[str, ...]:
        """Hash every file of an artifact; the altered or missing ones are named and the artifact is served no more."""
        record = self.record(address)
        if record is None and Artifact(address, self.home).only_told:
            raise StudyError(f"{address}: its record only is here, and no file to hash; run its study to have it")
        if not record:
            return (RECORD,)
        altered = self._altered(address, record, trust_times=False)
        if altered or record.get("altered"):
            record["altered"] = list(altered)
            write_whole(self.folder(address) / RECORD, json.dumps(record, indent=1))
        return altered

    def all(self, stage: str | None = None) -> list[str]:
        """Every address that has a record, of one stage or of all, in order."""
        found = self.root.glob(f"{stage or '*'}/[0-9a-f]*/{RECORD}")
        return sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in found)

    def told(self) -> list[str]:
        """Addresses of which the record only is here: ancestors of what was imported (`Artifact.told`)."""
        found = ("/".join(path.with_suffix("").parts[-2:]) for path in self.home.glob("ancestry/*/[0-9a-f]*.json"))
        return sorted(address for address in found if Artifact(address, self.home).only_told)

    def resolve(self, text: str) -> str:
        """The one address that begins with `text`: `measure/4819` for `measure/48195f80cea8`.

        One of which the record only is here is named when no other begins so.

        Raises:
            StudyError: no address begins so, or several do.
        """
        found = _beginning(text, self.all()) or _beginning(text, self.told())
        if len(found) == 1 or text in found:
            return text if text in found else found[0]
        near = f"; {len(found)} begin so: {', '.join(found[:4])}" if found else f"; look into {self.root}"
        raise StudyError(f"{text}: no such address{near}")

    # -- making ---------------------------------------------------------------------------------------------------

    def lock_file(self, address: str) -> Path:
        """There while an address is held; what was killed outright leaves it behind, without holding anything."""
        return self.home / "locks" / f"{address.replace('/', '-')}.lock"

    def left_behind(self, address: str) -> bool:
        """Whether who held an address was killed outright: its lock is there, and nobody holds it."""
        return self.lock_file(address).exists() and not held(self.lock_file(address))

    @contextmanager
    def lock(self, address: str, waiting: Callable[[dict[str, Any]], None] = lambda holder: None) -> Iterator[None]:
        """Hold the right to make an address. A second process waits, having been told for whom and since when.

        Args:
            waiting: called with the holder's {"pid", "since", "command"} when somebody else holds it; what it raises
                is raised, and nothing is waited for.
        """
        path = self.lock_file(address)
        try:
            file = acquire(path, waiting)
        except OSError as error:
            raise _unwritable(path.parent, error) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: nobody can hold a name that is gone (see `rmpipe.lock`)
            file.close()

    @contextmanager
    def making(self, address: str) -> Iterator[Path]:
        """A hidden folder to write into; gone on any failure. Hold the lock; call `publish` inside when it is whole."""
        final = self.folder(address)
        for stale in final.parent.glob(f".{final.name}.*"):
            shutil.rmtree(stale, ignore_errors=True)
        part = final.parent / f".{final.name}.{os.getpid()}.part"
        try:
            part.mkdir(parents=True)
            self.mark()
        except OSError as error:
            raise _unwritable(self.home, error) from error
        try:
            yield part
        except OSError as error:
            if error.errno in FULL and self._is_ours(error.filename):
                raise _unwritable(self.home, error) from error
            raise
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _is_ours(self, file: Any) -> bool:
        """Whether an error is about a file of this store, not one of the user's; an unnamed file is taken for ours."""
        return not isinstance(file, str | bytes) or Path(os.fsdecode(file)).absolute().is_relative_to(self.home)

    @staticmethod
    def seal(part: Path) -> dict[str, Any]:
        """What a record says of a folder's files: {"files", "content"}, a digest of each and one of all."""
        files = {str(path.relative_to(part)): _entry(path) for path in sorted(part.rglob("*")) if path.is_file()}
        content = digest({name: entry["sha256"] for name, entry in files.items()}, 64)
        return {"content": content, "files": files}

    def publish(self, part: Path, address: str, record: dict[str, Any]) -> None:
        """Write the record, which has been sealed, and rename the folder into place in one step."""
        write_whole(part / RECORD, json.dumps(record, indent=1))
        final = self.folder(address)
        if final.exists():
            final.rename(part.with_suffix(".old"))
        part.rename(final)
        self.clear(address)
        with (self.home / "built.txt").open("a") as ledger:
            ledger.write(f"{address}\n")

    def clear(self, address: str) -> None:
        """Remove what an artifact in place needs no more: its checkpoints, and the folder that it replaced."""
        final = self.folder(address)
        for left in (self.scratch(address), *final.parent.glob(f".{final.name}.*")):
            shutil.rmtree(left, ignore_errors=True)

    def check_writable(self) -> None:
        """Refuse to begin what could not be kept: called before anything is computed.

        Raises:
            StoreError: the store cannot be written, or less than 100 MiB are free; names the folder and the remedy.
        """
        try:
            for folder in (self.home, self.root):
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(folder / f".probe.{os.getpid()}", "x" * 4096)
                (folder / f".probe.{os.getpid()}").unlink()
            free = shutil.disk_usage(self.root).free
        except OSError as error:
            raise _unwritable(self.home, error) from error
        if free < LEAST:
            raise StoreError(f"{self.home}: only {free >> 20} MiB are free, {LEAST >> 20} are needed; {REMEDY}")

    # -- why ------------------------------------------------------------------------------------------------------

    def why(self, identity: dict[str, Any]) -> list[str]:
        """Why an address has to be made: what differs from the nearest record of the same stage.

        Returns:
            lines such as `sampling.temperature: 1.0 -> 0.7`; the record with the fewest differing leaves is nearest.
        """
        address = self.address(identity)
        if status := self.status(address).files:
            return [f"altered: {', '.join(status)}"]
        if self._built(address):
            return ["its folder is gone"]
        found = self.nearest(identity)
        return found[1] if found else ["never made before"]

    def nearest(self, identity: dict[str, Any], but: str = "") -> tuple[str, list[str]] | None:
        """The record of the same stage with the fewest differing leaves.

        Args:
            identity: {"stage", "version", "config", "inputs"}; a record will do.
            but: an address to leave out: its own.

        Returns:
            its address, and what differs as `sampling.temperature: 1.0 -> 0.7`; None when there is no other.
        """
        mine = _leaves(identity)
        best: tuple[int, str, dict[str, Any]] = (sys.maxsize, "", {})
        for other in self.all(identity["stage"]):
            leaves = self._leaves(other) if other != but else {}
            apart = len(_differing(leaves, mine)) if leaves else 0
            if 0 < apart < best[0]:
                best = (apart, other, leaves)
        return (best[1], _lines(best[2], mine)) if best[1] else None

    def _leaves(self, address: str) -> dict[str, Any]:
        path = self.folder(address) / RECORD
        try:
            return _leaves_at(path, path.stat().st_mtime_ns)
        except OSError:
            return {}

    def _built(self, address: str) -> bool:
        try:
            return address in (self.home / "built.txt").read_text().split()
        except FileNotFoundError:
            return False


def _beginning(text: str, addresses: list[str]) -> list[str]:
    return [address for address in addresses if address.startswith(text) or address.split("/")[1] == text]


def _leaves(identity: dict[str, Any]) -> dict[str, Any]:
    return flatten({**identity["config"], **identity["inputs"], "version": identity["version"]})


@lru_cache(maxsize=8192)
def _leaves_at(path: Path, written: int) -> dict[str, Any]:
    """The leaves of a record as it was written then: a plan compares each record with every step that is missing."""
    try:
        return _leaves(json.loads(path.read_text()))
    except (json.JSONDecodeError, KeyError):
        return {}


def _differing(other: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    absent = object()
    return [name for name in {**other, **mine} if other.get(name, absent) != mine.get(name, absent)]


def _lines(other: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    return [f"{name}: {_shown(other, name)} -> {_shown(mine, name)}" for name in _differing(other, mine)]


def _shown(leaves: dict[str, Any], name: str) -> str:
    return json.dumps(leaves[name], ensure_ascii=False)[:80].strip('"') if name in leaves else "(none)"


def _unwritable(where: Path, error: OSError) -> StoreError:
    return StoreError(f"{where}: cannot write ({error.strerror or error}); {REMEDY}")


def _entry(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": file_digest(path)}


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def find(stage: str, **labels: Any) -> list[Artifact]:
    """Artifacts of a stage by the names that people gave: `find("measure", reward_model="off", seed=1)`.

    The store is that of `$RMPIPE_HOME`, or `.rmpipe/` in the working folder.
    """
    store, wanted = Store(), {name: str(value) for name, value in labels.items()}
    found = [open_artifact(address, store.home) for address in store.all(stage)]
    return [artifact for artifact in found if wanted.items() <= artifact.record["labels"].items()]


def open(address: str) -> Artifact:
    """The artifact at an address, of which the first digits are enough.

    Raises:
        StudyError: none is there, or several are.
    """
    store = Store()
    return open_artifact(store.resolve(address), store.home)
