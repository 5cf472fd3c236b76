"""Configuration as a value: frozen, typed, unknown keys refused, with an identity that can be hashed.

A `Config` says *what* is asked for. A field marked `Runtime` says only *how fast*, and stays outside identity; a field
marked `Neutral(value)` was added later, and leaves old identities unmoved while it has that value.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError


class StudyError(ValueError):
    """Bad input from the user: names the file, the field and the remedy, and costs no compute."""


class Runtime:
    """Marks a field that changes how fast a result comes, never what it is: `Annotated[int, Runtime]`."""


@dataclass(frozen=True)
class Neutral:
    """Marks an option added after addresses were given out: at `value` it leaves them as they were."""

    value: Any


class Config(BaseModel):
    """A frozen value; unknown keys are refused, and so are numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def identity(config: Config) -> dict[str, Any]:
    """The part of a configuration that decides what comes out: no `Runtime` fields, no `Neutral` ones at rest.

    Of a kind that is not ours its code is a part too: only of ours a stage's version says when it computes otherwise.
    """
    fields = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        marks = field.metadata
        runtime = any(mark is Runtime or isinstance(mark, Runtime) for mark in marks)
        resting = any(isinstance(mark, Neutral) and mark.value == value for mark in marks)
        if not (runtime or resting):
            fields[name] = plain(value)
    kind = type(config)
    return fields | ({"class": _code_of(kind)} if isinstance(config, Registry) and _foreign(kind) else {})


def _foreign(kind: type) -> bool:
    """Whether a class is defined outside this package."""
    return kind.__module__.partition(".")[0] != __name__.partition(".")[0]


def _code_of(kind: type) -> str:
    """`module:Class` and the first digits of the SHA-256 of its file."""
    try:
        code = Path(inspect.getfile(kind)).read_bytes()
    except (OSError, TypeError):  # no file: typed into an interpreter
        code = b""
    return f"{_place(kind)} {hashlib.sha256(code).hexdigest()[:12]}"


def _place(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def plain(value: Any) -> Any:
    """A value as JSON holds it. Raises TypeError for what has no stable text: a callable, a set, a bare object."""
    if isinstance(value, Config):
        return identity(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"keys must be text, got {sorted(map(repr, value))}")
        return {key: plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} has no stable text and cannot be part of an address: {value!r}")


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = 12) -> str:
    """The first `length` hexadecimal digits of SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def inside(value: Any, where: str = "") -> Iterator[tuple[str, Config]]:
    """A configuration and all that are in it, each with its dotted place."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Config):
        yield where, value
        items = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, dict | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, part in items:
        yield from inside(part, _path(where, str(name)))


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as dotted leaves: `{"sampling.temperature": 1.0}`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None or (not value and prefix):
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, item in items:
        leaves |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def nearest(word: str, words: list[str]) -> str:
    """`; did you mean X?` when some known word is close, else the list of the known ones."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(words))}"


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def explain(error: ValidationError, kind: type[Config], where: str = "") -> str:
    """A validation error as one line a field: its dotted path, what is wrong, and what to write instead."""
    return "\n".join(_line(item, kind, where) for item in error.errors(include_url=False))


def _line(item: Any, kind: type[Config], where: str) -> str:
    path = _path(where, *map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown key; {nearest(str(item['loc'][-1]), _keys(kind, item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"{path}: missing; add it"
    if item["type"] in ("tuple_type", "list_type"):
        return f"{path}: expected a list such as {json.dumps([item['input']], default=repr)}, got {item['input']!r}"
    if isinstance(inside := item.get("ctx", {}).get("error"), StudyError):  # what `nested` read tells its own fields
        return "\n".join(f"{path}.{line}" for line in str(inside).splitlines())
    got = "" if item["type"] == "value_error" else f", got {item['input']!r}"
    return f"{path}: {item['msg'].removeprefix('Value error, ')}{got}"


def _path(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _keys(kind: type[Config], loc: tuple[Any, ...]) -> list[str]:
    """The keys of the section at a place; what names no field (a member of a table, an index) leads no further."""
    kinds = [kind]
    for part in loc:
        fields = [some.model_fields[part].annotation for some in kinds if part in some.model_fields]
        kinds = [inner for field in fields for inner in _kinds(field)] or kinds
    return list(dict.fromkeys(name for some in kinds for name in some.model_fields))


def _kinds(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [inner for part in get_args(annotation) for inner in _kinds(part)]


def in_one_line(error: BaseException) -> str:
    """An error of somebody else's code: its class, and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def load_entries(group: str) -> list[str]:
    """Import what other packages add through an entry point group.

    Returns:
        what could not be imported, one sentence each. It stops nobody who asks for something else.
    """
    faults = []
    for entry in entry_points(group=group):
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            told = f"the entry point {entry.name} = {entry.value!r} of {group} cannot be loaded ({in_one_line(error)})"
            faults.append(f"{told}; mend its package or uninstall it")
    return faults


def nested(family: Any) -> BeforeValidator:
    """A field that holds a member of a family reads its table so: `Annotated[SerializeAsAny[Shape], nested(Shape)]`."""
    return BeforeValidator(lambda table: family.parse(table, "") if isinstance(table, dict) else table)


class Registry:
    """A family of configurations, each found by one literal: `class Scaled(Kind): kind: Literal["scaled"]`.

    A member that is not ours is named by its place, `kind = "my_module:MyClass"`, its module beside the study or
    installed; or a package adds it under its own literal, through an entry point of the family's group.
    """

    family: ClassVar[dict[str, type[Config]]]
    key: ClassVar[str]
    group: ClassVar[str]
    ours: ClassVar[tuple[str, ...]]
    """Modules with members that are imported when one is asked for."""

    def __init_subclass__(cls, key: str = "", group: str = "", ours: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if key:
            cls.family, cls.key, cls.group, cls.ours = {}, key, group, ours

    @classmethod
    def __pydantic_init_subclass__(
        cls, key: str = "", group: str = "", ours: tuple[str, ...] = (), **kwargs: Any
    ) -> None:
        field = getattr(cls, "model_fields", {}).get(cls.key)
        for literal in get_args(field.annotation) if field else ():
            cls.family.setdefault(literal, cls)  # type: ignore[arg-type]  # whose own it is, not an heir's

    @classmethod
    def parse(cls, table: Any, where: str) -> Any:
        """Read a member from a table.

        Args:
            where: the table's place in the study, for messages.

        Raises:
            StudyError: unknown member or key, wrong type; one line each, with the nearest known name.
        """
        if not isinstance(table, dict):
            raise StudyError(f"{where}: expected a section, got {table!r}")
        name = table.get(cls.key)
        if name is not None and not isinstance(name, str):
            raise StudyError(f"{_path(where, cls.key)}: expected a name, got {name!r}; {nearest('', list(cls.family))}")
        member = cls.member(name, where)
        if name and ":" in name:
            table = {key: value for key, value in table.items() if key != cls.key}
        try:
            return member(**table)
        except ValidationError as error:
            raise StudyError(explain(error, member, where)) from error

    @classmethod
    def member(cls, name: str | None, where: str) -> Any:
        """The class of a member, by its literal or its place.

        Raises:
            StudyError: there is none; names the nearest.
        """
        return cls._at(name, where) if name and ":" in name else cls._named(name, where)

    @classmethod
    def _named(cls, name: str | None, where: str) -> type[Config]:
        """A member by its literal."""
        faults: list[str] = []
        if name not in cls.family:
            for module in cls.ours:
                import_module(module)
        if name not in cls.family:
            faults = load_entries(cls.group)
        if name not in cls.family:
            problem = "missing" if name is None else f"no {cls.key} {name!r}"
            told = [f"{problem}; {nearest(str(name), list(cls.family))}", *faults]
            raise StudyError(f"{_path(where, cls.key)}: {'; '.join(told)}")
        return cls.family[name]

    @classmethod
    def _at(cls, place: str, where: str) -> Any:
        """A member by its place, `module:Class`."""
        module, _, name = place.partition(":")
        form = f'a subclass of {cls.__module__}.{cls.__name__} is expected at {cls.key} = "module:Class"'
        try:
            found = import_module(module)
        except Exception as error:  # whatever its module raises
            raise StudyError(
                f"{_path(where, cls.key)}: {module} cannot be imported ({in_one_line(error)}); {form}"
            ) from error
        if (member := getattr(found, name, None)) is None:
            read = getattr(found, "__file__", None) or "part of Python"  # maybe another's of the same name
            raise StudyError(f"{_path(where, cls.key)}: {module} has no {name!r} ({read} was read); {form}")
        if not (isinstance(member, type) and issubclass(member, cls)):
            raise StudyError(f"{_path(where, cls.key)}: {place} is something else; {form}")
        return member

    def dump(self) -> dict[str, Any]:
        """As JSON holds it, so that `parse` gives it back in another process: what is not ours by its place."""
        kind = type(self)
        dumped: dict[str, Any] = self.model_dump(mode="json")  # type: ignore[attr-defined]
        return dumped | ({self.key: _place(kind)} if _foreign(kind) else {})
