"""What lies outside the store: a user's files and folders, and hub ids, as text that moves when they change."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from rmpipe.config import StudyError


def check_there(config: Any, where: str = "") -> None:
    """Refuse a `path` that looks like one of this machine, and has nothing at it.

    Args:
        config: anything with a `path`, or without.
        where: what the study calls it, for the message.

    Raises:
        StudyError: names the field and the path.
    """
    path = getattr(config, "path", None)
    if path is None or Path(path).exists():
        return
    if path.startswith(("/", ".", "~", "$")) or Path(path).suffix in (".jsonl", ".json", ".parquet"):
        field = f"{where}.path: " if where else ""
        raise StudyError(f"{field}{path}: nothing there; give a file, a folder or a hub id")


def fingerprint_path(config: Any) -> str:
    """SHA-256 of what a configuration's `path` names; a hub id with its revision; empty when it has no path.

    Raises:
        StudyError: the path looks like one of this machine, and nothing is there.
    """
    path = getattr(config, "path", None)
    if path is None:
        return ""
    check_there(config)
    if Path(path).exists():
        return fingerprint_files(Path(path))
    return f"{path}@{getattr(config, 'revision', None) or 'main'}"


def fingerprint_files(path: Path) -> str:
    """SHA-256 over a file, or over the names and contents of all files in a folder, hidden ones left out."""
    if path.is_file():
        return _digest(path)
    whole = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in inside.parts):
            whole.update(f"{inside}\0{_digest(file)}\n".encode())
    return whole.hexdigest()


def _digest(file: Path) -> str:
    stat = file.stat()
    return _digest_once(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_once(file: Path, size: int, changed: int) -> str:
    """Each seed of a study asks again for the same folder."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
