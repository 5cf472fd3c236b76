"""The mechanism: a stage is a function; its address is a hash of what it was told.

`@stage` reads a function's annotations: a `Config` (or a plain value) is configuration, an `Artifact` an input, the
return annotation the output. An input that is None by default was added later: at None it moves no address. Calling a
stage inside `planning()` computes its address and notes the call; `run` then executes exactly what `plan` printed.
Outside of `planning()` the call runs at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, update_wrapper
from typing import Any, Generic, Protocol, TypeVar, get_type_hints

from rmpipe.artifact import Artifact, addresses, handles
from rmpipe.code import changed, code_key, remembered
from rmpipe.config import Config, StudyError, identity, nearest, plain
from rmpipe.store import Store

A = TypeVar("A", bound=Artifact)
_plan: ContextVar[Plan | None] = ContextVar("plan", default=None)
_labels: ContextVar[dict[str, Any] | None] = ContextVar("labels", default=None)
_guards: ContextVar[tuple[Any, ...]] = ContextVar("guards", default=())


@contextmanager
def labelled(**labels: Any) -> Iterator[None]:
    """Names that a person reads for the calls inside (policy, reward model, seed): tags, never part of an address."""
    token = _labels.set(labels)
    try:
        yield
    finally:
        _labels.reset(token)


@contextmanager
def guarded(*guards: Guard) -> Iterator[None]:
    """What must be made, and not object, before the calls inside are made; never part of an address."""
    token = _guards.set(guards)
    try:
        yield
    finally:
        _guards.reset(token)


class Guard(Protocol):
    """An artifact that may object to what is to be made."""

    address: str

    def objection(self) -> str | None:
        """Why not, with the remedy; None where it has none."""
        ...


@dataclass(frozen=True)
class Call:
    """One stage told one thing: all that is needed to make its artifact, here or in another process."""

    stage: Stage
    told: dict[str, Any]  # arguments as given: configuration and handles
    labels: dict[str, Any] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the address is a hash of."""
        config: dict[str, Any] = {}
        for name in self.stage.settings:
            value = self.told[name]
            config |= identity(value) if name == "config" else {name: plain(value)}
        given = {name: self.told[name] for name in self.stage.inputs}
        inputs = {name: addresses(v) for name, v in given.items() if v is not None or name not in self.stage.later}
        return {"stage": self.stage.name, "version": self.stage.version, "config": config, "inputs": inputs}

    @cached_property
    def address(self) -> str:
        """`stage/12 hexadecimal digits`."""
        return Store.address(self.identity)

    @cached_property
    def needs(self) -> list[Artifact]:
        """The handles it reads, each once."""
        found = handles([self.told[name] for name in self.stage.inputs])
        return list({handle.address: handle for handle in found}.values())

    @property
    def awaits(self) -> list[str]:
        """The addresses of what must be there before it is made: what it reads, and its guards."""
        return [*(need.address for need in self.needs), *(guard.address for guard in self.guards)]

    @property
    def objections(self) -> list[str]:
        """What its guards, which must be there, have against it."""
        return [told for guard in self.guards if (told := guard.objection())]

    @cached_property
    def code(self) -> dict[str, str]:
        """Digests of the code it would run: the stage's, and that of its configuration's classes."""
        kinds = {
            f"{type(v).__module__}.{type(v).__name__}"
            for v in map(self.told.get, self.stage.settings)
            if isinstance(v, Config)
        }
        return code_key(self.stage.qualname, *sorted(kinds))

    @property
    def title(self) -> str:
        """`train off · seed 1`: what a person calls it."""
        names = [str(value) for name, value in self.labels.items() if name != "seed"]
        seed = [f"seed {self.labels['seed']}"] if "seed" in self.labels else []
        return " · ".join([" ".join([self.stage.name, *names]), *seed])

    def __reduce__(self):
        as_planned = {"identity": self.identity, "code": self.code}
        return _rebuild, (self.stage.module, self.stage.name, self.told, self.labels, as_planned)


def _rebuild(
    module: str, name: str, told: dict[str, Any], labels: dict[str, Any], as_planned: dict[str, dict[str, Any]]
) -> Call:
    from importlib import import_module

    call = Call(getattr(import_module(module), name), told, labels)
    call.__dict__.update(as_planned)  # an edit since then is not what the workers have loaded
    return call


class Stage(Generic[A]):
    """A function that makes an artifact, with its address, its cache and its place in a plan."""

    def __init__(self, function: Callable[..., A], version: int, retry: tuple[type[Exception], ...]):
        update_wrapper(self, function)
        self.function, self.version, self.retry = function, version, retry
        self.name, self.module = function.__name__, function.__module__
        self.qualname = f"{function.__module__}.{function.__name__}"
        hints = get_type_hints(function)
        self.output: type[A] = hints.pop("return")
        self.signature = inspect.signature(function)
        told = [name for name in self.signature.parameters if name not in ("out", "log")]
        self.inputs = [name for name in told if _holds_artifacts(hints[name])]
        self.settings = [name for name in told if name not in self.inputs]
        self.later = {name for name in self.inputs if self.signature.parameters[name].default is None}

    def __call__(self, *args: Any, **kwargs: Any) -> A:
        bound = self.signature.bind_partial(*args, **kwargs)
        bound.apply_defaults()
        missing = [n for n in (*self.inputs, *self.settings) if n not in bound.arguments]
        if missing:
            raise TypeError(f"{self.name}() is missing {', '.join(missing)}")
        call = Call(self, dict(bound.arguments), dict(_labels.get() or {}), _guards.get())
        plan = _plan.get()
        if plan is None:
            from tasks.execution import perform

            if objections := call.objections:
                raise StudyError("; ".join(objections))

            perform(call, Store())
            return self.output(call.address, Store().home)
        return plan.add(call)


def stage(version: int, retry: tuple[type[Exception], ...] = ()) -> Callable[[Callable[..., A]], Stage[A]]:
    """Declare a stage.

    Args:
        version: raise it to say "I changed what this computes": all its addresses move.
        retry: errors after which trying again helps (a network that answers late).
    """
    return lambda function: Stage(function, version, retry)


def _holds_artifacts(hint: Any) -> bool:
    if isinstance(hint, type):
        return issubclass(hint, Artifact)
    return any(_holds_artifacts(part) for part in getattr(hint, "__args__", ()))


@dataclass
class Step:
    """A call in a plan: `hit` or `run`, why, and what a person should know about a hit."""

    call: Call
    status: str
    why: list[str]
    notes: list[str]
    refresh: bool = False
    """Made again although the store has it."""

    @property
    def address(self) -> str:
        """The call's address."""
        return self.call.address

    def json(self) -> dict[str, Any]:
        """As `rmpipe plan --json` prints it."""
        told = {"stage": self.call.stage.name, "address": self.address, "status": self.status}
        return told | {"why": self.why + self.notes, "title": self.call.title}


class Plan:
    """What an inquiry asks for, in the order asked, each address once.

    Args:
        store: where artifacts lie.
        strict: refuse a hit whose code, or whose inputs' bytes, are not those of today.
        refresh: names of stages to make again.
    """

    def __init__(self, store: Store, *, strict: bool = False, refresh: tuple[str, ...] = ()):
        self.store, self.strict, self.refresh = store, strict, refresh
        self.steps: dict[str, Step] = {}

    def add(self, call: Call) -> Any:
        """Note a call and give its handle."""
        if call.address not in self.steps:
            self.steps[call.address] = self._step(call)
        return call.stage.output(call.address, self.store.home)

    def _step(self, call: Call) -> Step:
        status = self.store.status(call.address)
        notes = staleness(call, self.store) if status else []
        if status and call.stage.name in self.refresh:
            return Step(call, "run", ["refresh asked for"], [], refresh=True)
        if status and self.strict and notes:
            return Step(call, "run", [f"{note}; refused by --strict" for note in notes], [])
        if status:
            return Step(call, "hit", [], notes)
        return Step(call, "run", self.store.why(call.identity), [])

    @property
    def to_run(self) -> list[Step]:
        """The steps that are not hits."""
        return [step for step in self.steps.values() if step.status == "run"]

    def summary(self, how: dict[str, str] | None = None) -> list[dict[str, Any]]:
        """Every address with its stage, title and status: `hit` or `not run`, or how it ended.

        Args:
            how: `made`, `taken`, `hit`, `failed` or `not run` by address, of those that have ended.
        """
        rest = {address: "hit" if step.status == "hit" else "not run" for address, step in self.steps.items()}
        return [
            {"stage": step.call.stage.name, "title": step.call.title, "address": address, "status": status}
            for (address, step), status in zip(self.steps.items(), (rest | (how or {})).values(), strict=True)
        ]

    def keep(self, only: tuple[str, ...]) -> None:
        """Drop every step but those of the named stages and what they need."""
        self.check_names(only, "--only")
        self.narrow(address for address, step in self.steps.items() if step.call.stage.name in only)

    def narrow(self, addresses: Iterable[str]) -> None:
        """Drop every step but these and what they need."""
        kept = set(addresses)
        for address, step in reversed(self.steps.items()):
            if address in kept:
                kept |= {address, *step.call.awaits}
        self.steps = {address: step for address, step in self.steps.items() if address in kept}

    def check_names(self, names: tuple[str, ...], option: str) -> None:
        """Refuse a name that is no stage of this plan.

        Raises:
            StudyError: names the option and the nearest stage.
        """
        known = sorted({step.call.stage.name for step in self.steps.values()})
        for name in names:
            if name not in known:
                raise StudyError(f"{option} {name}: no such stage here; {nearest(name, known)}")


@contextmanager
def planning(store: Store, **options: Any) -> Iterator[Plan]:
    """Inside, stages compute addresses and note themselves; nothing runs."""
    plan = Plan(store, **options)
    token = _plan.set(plan)
    try:
        with remembered(store.home / "code.json"):
            yield plan
    finally:
        _plan.reset(token)


def staleness(call: Call, store: Store) -> list[str]:
    """What a hit should say: its code, or its inputs' bytes, are no longer those it was made with."""
    record = store.record(call.address) or {}
    notes = []
    if names := changed(record.get("code", {}), call.code):
        notes.append(
            f"code changed since: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        )
    for need in call.needs:
        now, then = store.record(need.address), record.get("read", {}).get(need.address)
        if now and then and now["content"] != then:
            notes.append(f"input {need.address} was made again with other bytes")
    return notes
