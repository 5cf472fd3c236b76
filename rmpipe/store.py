"""The store: one folder an artifact, at an address that is a hash of what its stage was told.

An artifact is written into a hidden sibling folder and renamed into place when whole, so a crash leaves nothing at the
address. A lock on the address makes a second process wait and take the first one's artifact; the kernel drops it when
its holder dies. `record.json` beside the data says what was told and what came out, with a digest of every file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmpipe.artifact import Artifact, open_artifact
from rmpipe.config import StudyError, digest, flatten

RECORD = "record.json"


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
    """

    def __init__(self, home: Path | str | None = None):
        self.home = Path(home or os.environ.get("RMPIPE_HOME") or ".rmpipe").absolute()
        self.root = self.home / "store"

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
            if found.st_size != expected["size"] or not (same_time or _sha256(folder / name) == expected["sha256"]):
                wrong.append(name)
        return tuple(wrong)

    def verify(self, address: str) -> tuple[str, ...]:
        """Hash every file of an artifact; the altered or missing ones are named and the artifact is served no more."""
        record = self.record(address)
        if not record:
            return (RECORD,)
        altered = self._altered(address, record, trust_times=False)
        if altered or record.get("altered"):
            record["altered"] = list(altered)
            _write_whole(self.folder(address) / RECORD, json.dumps(record, indent=1))
        return altered

    def all(self, stage: str | None = None) -> list[str]:
        """Every address that has a record, of one stage or of all, in order."""
        found = self.root.glob(f"{stage or '*'}/[0-9a-f]*/{RECORD}")
        return sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in found)

    def resolve(self, text: str) -> str:
        """The one address that begins with `text`: `measure/4819` for `measure/48195f80cea8`.

        Raises:
            StudyError: no address begins so, or several do.
        """
        found = [address for address in self.all() if address.startswith(text) or address.split("/")[1] == text]
        if len(found) == 1 or text in found:
            return text if text in found else found[0]
        near = f"; {len(found)} begin so: {', '.join(found[:4])}" if found else f"; look into {self.root}"
        raise StudyError(f"{text}: no such address{near}")

    # -- making ---------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, address: str, waiting: Callable[[dict[str, Any]], None] = lambda holder: None) -> Iterator[None]:
        """Hold the right to make an address. A second process waits, having been told for whom and since when.

        Args:
            waiting: called once with the holder's {"pid", "since", "command"} when somebody else holds it.
        """
        path = self.home / "locks" / f"{address.replace('/', '-')}.lock"
        file = _acquire(path, waiting)
        try:
            holder = {
                "pid": os.getpid(),
                "since": time.strftime("%H:%M:%S"),
                "command": os.environ.get("RMPIPE_TASK", ""),
            }
            file.truncate(0)
            file.write(json.dumps(holder))
            file.flush()
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: nobody can hold a name that is gone (see _acquire)
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
        except OSError as error:
            raise _unwritable(self.home, error) from error
        try:
            yield part
        except OSError as error:
            raise _unwritable(self.home, error) if error.errno in (28, 30, 13, 122) else error from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def publish(self, part: Path, address: str, record: dict[str, Any]) -> None:
        """Write the record with a digest of every file, and rename the folder into place in one step."""
        files = {str(path.relative_to(part)): _entry(path) for path in sorted(part.rglob("*")) if path.is_file()}
        content = digest({name: entry["sha256"] for name, entry in files.items()}, 64)
        _write_whole(part / RECORD, json.dumps({**record, "content": content, "files": files}, indent=1))
        final, old = self.folder(address), part.with_suffix(".old")
        if final.exists():
            final.rename(old)
        part.rename(final)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self.scratch(address), ignore_errors=True)
        with (self.home / "built.txt").open("a") as ledger:
            ledger.write(f"{address}\n")

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
        mine = flatten({**identity["config"], **identity["inputs"], "version": identity["version"]})
        best: list[str] | None = None
        for other in self.all(identity["stage"]):
            lines = difference(self.record(other) or {}, mine)
            if lines and (best is None or len(lines) < len(best)):
                best = lines
        return best if best is not None else ["never made before"]

    def _built(self, address: str) -> bool:
        try:
            return address in (self.home / "built.txt").read_text().split()
        except FileNotFoundError:
            return False


def difference(record: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    """The leaves in which a record differs from a flat identity, as `name: old -> new`."""
    if "config" not in record:
        return []
    other = flatten({**record["config"], **record["inputs"], "version": record["version"]})
    absent = object()
    names = [name for name in {**other, **mine} if other.get(name, absent) != mine.get(name, absent)]
    return [f"{name}: {_shown(other, name)} -> {_shown(mine, name)}" for name in names]


def _shown(leaves: dict[str, Any], name: str) -> str:
    return json.dumps(leaves[name], ensure_ascii=False)[:80].strip('"') if name in leaves else "(none)"


def _acquire(path: Path, waiting: Callable[[dict[str, Any]], None]):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(_holder(path))
                fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
            file.close()  # the holder let go and removed the name between our opening and our locking it
    except PermissionError as error:
        raise _unwritable(path.parent, error) from error
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _holder(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {"pid": "?", "since": "?", "command": ""}


def _unwritable(where: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{where}: cannot write ({error.strerror}); free space or set RMPIPE_HOME to a folder you may write"
    )


def _entry(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


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
