"""What lies outside the store: a user's files and folders, and hub ids, as text that moves when they change."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rmpipe.config import StudyError


def fingerprint_path(config: Any) -> str:
    """SHA-256 of what a configuration's `path` names; a hub id with its revision; empty when it has no path.

    Raises:
        StudyError: the path looks like one of this machine, and nothing is there.
    """
    path = getattr(config, "path", None)
    if path is None:
        return ""
    if Path(path).exists():
        return fingerprint_files(Path(path))
    if path.startswith(("/", ".", "~")) or Path(path).suffix in (".jsonl", ".json", ".parquet"):
        raise StudyError(f"{path}: nothing there; give a file, a folder or a hub id")
    return f"{path}@{getattr(config, 'revision', None) or 'main'}"


def fingerprint_files(path: Path) -> str:
    """SHA-256 over the names and contents of a file or of all files in a folder, hidden ones left out."""
    files = (
        [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    )
    whole = hashlib.sha256()
    for file in files:
        name = file.name if path.is_file() else str(file.relative_to(path))
        with file.open("rb") as stream:
            whole.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
