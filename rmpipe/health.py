"""What keeps rmpipe from working on this machine, found before a run finds it.

A check is a function that gives findings; it leaves nothing behind and imports nothing heavy. Torch, Prefect's server
and the hub cost seconds: they are asked in processes of their own, begun first and listened to last.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from rmpipe import schema
from rmpipe.browser import healthy
from rmpipe.config import first_line
from rmpipe.lock import held
from rmpipe.probe import DEVICES, HUB, PATIENCE, PREFECT, Asked, asked
from rmpipe.store import FORMAT, LEAST, REMEDY, Store, StoreError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

SHOWN = ("torch", "transformers", "trl", "datasets", "mlflow", "prefect", "pandas")
"""Packages whose version is said even when nothing is wrong with it."""
NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "beegfs", "gpfs", "fuse.sshfs")
"""How the names begin of file systems that several machines may share."""
DATABASES = {"mlflow": "mlflow.db", "prefect": "prefect/prefect.db"}
"""Package -> its database below the home."""
SLOW = 60.0  # seconds for an import on a busy machine


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: what was looked at.
        level: `ok`; `note`, worth knowing; `fault`, a run fails or goes wrong.
        found: in words.
        remedy: what to do, in words; empty when nothing need be done.
        command: what to type for it.
    """

    check: str
    level: str
    found: str
    remedy: str = ""
    command: str = ""


def examine(home: Path) -> Iterator[Finding]:
    """Look at this machine, the store and the services; what is found, one check after the other.

    Args:
        home: the folder with all state; it need not be there.
    """
    with asked(DEVICES) as devices, asked(PREFECT) as prefect, asked(HUB) as hub:
        for check in CHECKS:
            yield from _findings(check.__name__, partial(check, home))
        yield from _findings("devices", partial(_devices, devices))
        yield from _findings("prefect start", partial(_prefect_starts, prefect))
        yield from _findings("hub", partial(_hub, hub))


def _findings(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # whatever is broken, the other checks go on
        yield Finding(name, "fault", f"could not be looked at: {type(error).__name__}: {first_line(error)}")


# -- the machine ------------------------------------------------------------------------------------------------------


def packages(home: Path) -> Iterator[Finding]:
    """Python and the packages, against the ranges that rmpipe declares."""
    ours = _version("rmpipe")
    python = f"{platform.python_version()} at {sys.executable}, rmpipe {ours or 'runs uninstalled'}"
    yield Finding("python", "ok", python)
    there = {need.name: _version(need.name) for need in _needs()}
    wrong = [need for need in _needs() if not need.specifier.contains(there[need.name] or "0", prereleases=True)]
    for need in wrong:
        found = f"{need.name} {there[need.name] or 'is missing'}; rmpipe needs {need.specifier}"
        yield Finding("packages", "fault", found, "install one that it was tested with", _pip([need]))
    if not wrong:
        yield Finding("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in SHOWN))


def _needs() -> list[Requirement]:
    """What rmpipe's own metadata asks for, without extras; nothing when it runs uninstalled."""
    from packaging.requirements import Requirement

    with suppress(metadata.PackageNotFoundError):
        needs = [Requirement(line) for line in metadata.requires("rmpipe") or []]
        return [need for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
    return []


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _pip(needs: Iterable[Requirement]) -> str:
    words = [_quoted(f"{need.name}{need.specifier}") for need in needs]
    return " ".join([_quoted(sys.executable), "-m pip install", *words])


def memory(home: Path) -> Iterator[Finding]:
    """Memory and cores that this process may use."""
    import psutil

    found = psutil.virtual_memory()
    total = found.total
    with suppress(OSError, ValueError):  # a container has less than its machine
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    free = min(total, found.available)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("memory", "ok", f"{_gib(free)} of {_gib(total)} are free; CPU cores: {cores}")


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


# -- the store --------------------------------------------------------------------------------------------------------


def store(home: Path) -> Iterator[Finding]:
    """Whether the store may be written, and what form it has."""
    try:
        found = Store(home)
        if not home.exists():
            yield Finding("store", "ok", f"{home} is not there yet; the first run makes it")
            return
        found.check_writable()
    except StoreError as error:
        told, _, remedy = str(error).partition("; ")
        yield Finding("store", "fault", told, remedy)
        return
    by = "RMPIPE_HOME" if os.environ.get("RMPIPE_HOME") else "of the working folder"
    yield Finding("store", "ok", f"{home} ({by}), format {FORMAT}, {len(found.all())} artifacts; it may be written")


def disk(home: Path) -> Iterator[Finding]:
    """Space, and whether a lock that one process holds keeps another out."""
    import psutil

    there = next(path for path in (home, *home.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    level, remedy = ("fault", REMEDY) if free < LEAST else ("ok", "")
    yield Finding("disk", level, f"{_gib(free)} are free at {there}", remedy)
    mounts = [each for each in psutil.disk_partitions(all=True) if there.resolve().is_relative_to(each.mountpoint)]
    kind = max(mounts, key=lambda each: len(each.mountpoint)).fstype if mounts else "unknown"
    if there == home and os.access(home, os.W_OK) and not _locks_hold(home):
        remedy = "two runs would overwrite each other: set RMPIPE_HOME to a folder of a disk of this machine"
        yield Finding("locks", "fault", f"a lock keeps nobody out on this file system ({kind})", remedy)
    elif kind.startswith(NETWORK):
        remedy = "SQLite and locks are sure between the processes of one machine alone: let one machine use this store"
        yield Finding("locks", "note", f"{there} is on a network file system ({kind})", remedy)
    else:
        yield Finding("locks", "ok", f"they hold on this file system ({kind})")


def _locks_hold(home: Path) -> bool:
    program = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with tempfile.NamedTemporaryFile(dir=home, prefix=".probe.") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        command = [sys.executable, "-I", "-S", "-c", program, file.name]
        return "BlockingIOError" in subprocess.run(command, capture_output=True, text=True, check=False).stderr


def databases(home: Path) -> Iterator[Finding]:
    """Whether the databases of MLflow and Prefect are whole, and of the form that the installed packages know."""
    for package, name in DATABASES.items():
        file, check = home / name, f"{package} data"
        try:
            form = schema.form(file) if file.exists() else None
        except sqlite3.OperationalError as error:
            yield Finding(check, "note", f"{file} could not be read just now: {error}")
        except sqlite3.DatabaseError as error:
            remedy = f"move it away: the next run makes a new one; {package} forgets what was, the store does not"
            command = f"mv {_quoted(file)} {_quoted(file)}.broken"
            yield Finding(check, "fault", f"{file} is broken: {error}", remedy, command)
        else:
            yield Finding(check, *_form(package, file, form))


def _form(package: str, file: Path, form: str | None) -> tuple[str, ...]:
    """Whether the installed package knows a database's form; one that is only old, Prefect mends by itself."""
    if form is None:
        return "ok", f"no {file.name} yet; the first run makes it"
    known = schema.forms(package)
    whole = f"{file.name} is whole, {file.stat().st_size / 2**20:.0f} MiB"
    if known and form not in known:
        found = f"{file.name} was written by another {package} than {_version(package)}, a later one (form {form})"
        return "fault", found, f"install the {package} that wrote it, or move {file} away"
    if known.get(form) and package == "mlflow":
        found = f"{file.name} was written by an earlier mlflow than {_version(package)} (form {form})"
        upgrade = f"{_quoted(sys.executable)} -m mlflow db upgrade {_quoted(f'sqlite:///{file}')}"
        command = f"cp {_quoted(file)} {_quoted(file)}.before && {upgrade}"
        return "fault", found, "when nothing uses it, keep a copy and bring it up to date", command
    return "ok", f"{whole}{'; the next run brings it up to date' if known.get(form) else ''}"


def _quoted(what: Path | str) -> str:
    return shlex.quote(str(what))


# -- who is at work ---------------------------------------------------------------------------------------------------


def work(home: Path) -> Iterator[Finding]:
    """Who holds what in the store, and what processes that were killed have left."""
    locks = sorted((home / "locks").glob("*.lock"))
    busy = [file for file in locks if held(file)]
    yield from (Finding("at work", "ok", _holder(file)) for file in busy)
    if not busy:
        yield Finding("at work", "ok", "nobody")
    names = {file.stem for file in busy}
    halves = [path for path in (home / "store").glob("*/.*") if _owner(path) not in names]
    entries = [file for file in (home / "journal").glob("*/[!.]*.json") if file.stem not in names and not held(file)]
    left = {"locks": set(locks) - set(busy), "half-written artifacts": halves, "open journal entries": entries}
    words = ", ".join(f"{what}: {len(found)}" for what, found in left.items() if found)
    if words:
        remedy = "nothing need be done: the next run that computes something closes them, or takes over"
        yield Finding("left behind", "note", f"by processes that were killed: {words}", remedy)
    else:
        yield Finding("left behind", "ok", "nothing")


def _holder(file: Path) -> str:
    try:
        told = json.loads(file.read_text())
        return f"process {told['pid']} holds {told['command'] or file.stem} since {told['since']} ({file.stem})"
    except (OSError, ValueError, KeyError):  # it lets go just now, or has just begun
        return f"somebody holds {file.stem}"


def _owner(half: Path) -> str:
    """The name of the lock that the writer of a hidden folder `.digest.pid.part` holds."""
    return f"{half.parent.name}-{half.name.split('.')[1]}"


def server(home: Path) -> Iterator[Finding]:
    """The store's own server of Prefect, if there is one."""
    folder = home / "prefect"
    if not (folder / "server.json").exists():
        yield Finding("prefect server", "ok", "Prefect's is not running; a run starts it")
        return
    told = json.loads((folder / "server.json").read_text())
    what = f"Prefect's, process {told['pid']} on port {told['port']} since {told['since']}"
    if not held(folder / "server.lock"):
        yield Finding("prefect server", "note", f"{what}, was killed", "nothing need be done: a run starts another")
    elif healthy(told["port"], "/api/health"):
        yield Finding("prefect server", "ok", f"{what}, answers")
    else:
        remedy = "it may be starting; if it does not come to answer, end it, and the next run starts another"
        yield Finding("prefect server", "note", f"{what}, does not answer", remedy, f"kill {told['pid']}")


# -- services ---------------------------------------------------------------------------------------------------------


def services(home: Path) -> Iterator[Finding]:
    """Whether the servers that the environment names answer."""
    remedies = "start it, mend the address, or forget it: the store's own is used then"
    for name, path, own in (
        ("MLFLOW_TRACKING_URI", "/version", f"MLflow's database is {home / 'mlflow.db'}"),
        ("PREFECT_API_URL", "/health", "Prefect's server is the store's own"),
    ):
        uri, check = os.environ.get(name, ""), name.split("_")[0].lower()
        if not uri:
            yield Finding(check, "ok", f"{name} is not set: {own}")
        elif not uri.startswith("http"):
            yield Finding(check, "note", f"{name} is {_without_password(uri)}; whether it answers was not looked at")
        else:
            fault = _unanswered(f"{uri.rstrip('/')}{path}")
            level, said = ("fault", f"does not answer ({fault})") if fault else ("ok", "answers")
            remedy, command = (remedies, f"unset {name}") if fault else ("", "")
            yield Finding(check, level, f"{_without_password(uri)} ({name}) {said}", remedy, command)


def _without_password(uri: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", uri)


def _unanswered(url: str) -> str:
    """Why a server does not answer; empty when it does, be it that it wants to know first who asks."""
    try:
        urllib.request.urlopen(url, timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        return "" if error.code in (401, 403) else f"it says {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return ""


CHECKS = (packages, memory, store, disk, databases, work, server, services)
"""What is looked at within a second or two, in this order."""


# -- what costs seconds -----------------------------------------------------------------------------------------------


def _devices(probe: Asked) -> Iterator[Finding]:
    said, fault = probe.answer(SLOW)
    if fault:
        remedy = "install it again, for this machine"
        yield Finding(
            "devices",
            "fault",
            f"torch cannot be imported: {fault}",
            remedy,
            _pip(need for need in _needs() if need.name == "torch"),
        )
        return
    told = json.loads(said)
    if told["found"]:
        yield Finding("devices", "ok", f"{'; '.join(told['found'])} (CUDA {told['cuda']})")
    elif told["said"] or Path("/dev/nvidiactl").exists():
        why = first_line(RuntimeError(told["said"][0])) if told["said"] else "a GPU is there"
        remedy = "everything runs on the CPU; for the GPU install a torch that was built for its driver"
        yield Finding("devices", "note", f"torch {told['torch']} cannot use the GPU: {why}", remedy)
    else:
        yield Finding("devices", "ok", "the CPU; no GPU is there")


def _prefect_starts(probe: Asked) -> Iterator[Finding]:
    _, fault = probe.answer(SLOW)
    if not fault:
        yield Finding("prefect start", "ok", "it can be started")
        return
    found = f"it cannot be started under fastapi {_version('fastapi')}: {fault}"
    remedy = "install what rmpipe was tested with"
    yield Finding(
        "prefect start",
        "fault",
        found,
        remedy,
        _pip(need for need in _needs() if need.name in ("fastapi", "prefect", "sqlalchemy")),
    )


def _hub(probe: Asked) -> Iterator[Finding]:
    works = "the embedded world, folders and files of yours work, and what was downloaded before"
    if any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    ):
        yield Finding("hub", "note", "HF_HUB_OFFLINE says not to ask it", works)
        return
    place, fault = probe.answer(2 * PATIENCE)
    if fault:
        yield Finding("hub", "note", f"cannot be reached: {fault}", works, "export HF_HUB_OFFLINE=1")
    else:
        yield Finding("hub", "ok", f"{place} answers")
