"""The text of a study: a TOML file over the one that it extends, changed from the command line, its places absolute.

What a study says is laid over what it extends, section by section; a list, and a section of another `kind` or `source`,
replace the old one whole. `false` in place of a section takes it away:

    extends = "local"
    ground_truth = ""           # none

    [reward_models]
    half = false                # as if the other study had no [reward_models.half]
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from rmpipe.config import StudyError, nearest


def prefixed(file: Path, lines: str) -> str:
    """Each line of a message with the study's file before it."""
    return "\n".join(line if line.startswith(str(file)) else f"{file}: {line}" for line in lines.splitlines())


def load(file: Path, heirs: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A study's table, over that of the study that it extends.

    Args:
        file: the study.
        heirs: studies that extend it, to tell a ring.

    Raises:
        StudyError: a file is not there or not TOML, or studies extend one another.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise StudyError(f"{file}: no such study file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{file}: not TOML: {error}") from None
    except OSError as error:
        raise StudyError(f"{file}: cannot be read ({error.strerror}); give a file that can") from None
    table = _absolute(table, file.parent)
    parent = table.pop("extends", None)
    if parent is None:
        return table
    if not isinstance(parent, str):
        raise StudyError(f"{file}: extends: expected the name of a study, got {parent!r}")
    ours, heirs = Path(__file__).parent.parent / "flows" / "studies", (*heirs, file.resolve())
    name = parent if parent.endswith(".toml") else f"{parent}.toml"
    there = [folder / name for folder in (file.parent, ours) if (folder / name).exists()]
    for place in there:
        if place.resolve() not in heirs:  # a study may have the name of the one of ours that it extends
            return _merged(load(place, heirs), table)
    if there:
        raise StudyError(f"{file}: extends: {parent!r} extends itself by way of this file; name another")
    known = [
        path.stem for folder in (file.parent, ours) for path in folder.glob("*.toml") if path.resolve() != heirs[-1]
    ]
    raise StudyError(f"{file}: extends: no study {parent!r}; {nearest(parent, known)}")


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """What a study says over what it extends; a section of another kind or source takes nothing over."""
    if any(tag in over and over[tag] != under.get(tag) for tag in ("kind", "source")):
        return dict(over)
    both = dict(under)
    for key, value in over.items():
        mine = both.get(key)
        _put(both, key, _merged(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value)
    return both


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    """Set a value; `false` in place of a section takes the section away."""
    if value is False and isinstance(table.get(key), dict):
        del table[key]
    else:
        table[key] = value


PLACES = ("path", "tokenizer", "labels")
"""Keys whose value, where it is text, names something beside the study file, or a hub id."""


def _absolute(value: Any, folder: Path) -> Any:
    """Every place that is beside the study file, made absolute; hub ids stay as they are."""
    if isinstance(value, list):
        return [_absolute(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _place(item, folder) if key in PLACES else _absolute(item, folder) for key, item in value.items()}


def _place(text: Any, folder: Path) -> Any:
    if not isinstance(text, str):  # `labels` may be a section
        return _absolute(text, folder)
    path = folder / Path(os.path.expandvars(text)).expanduser()
    return str(path.resolve()) if path.exists() or text.startswith((".", "~", "/", "$")) else text


def change_in(table: dict[str, Any], change: str) -> None:
    """Set one value: `a.b=value`, as TOML writes it, or plain text; `a.b=false` takes a section away.

    Raises:
        StudyError: it has no `=`, or leads through what is no section.
    """
    path, sign, text = change.partition("=")
    if not sign:
        raise StudyError(f"--set {change}: expected a.b=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *folders, leaf = path.strip().split(".")
    for folder in folders:
        table = table.setdefault(folder, {})
        if not isinstance(table, dict):
            raise StudyError(f"--set {change}: {folder} is not a section")
    _put(table, leaf, _place(value, Path.cwd()) if leaf in PLACES else value)
