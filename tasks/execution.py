"""Making one artifact, in this process or in one of a pool of processes that are kept and reused.

Importing the trainers costs seconds, so a worker pays for it once. A worker writes what libraries print into a log file
of its own, and dies with its parent.
"""

from __future__ import annotations

import gc
import glob
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rmpipe.artifact import Artifact, handles
from rmpipe.config import Runtime, StudyError, flatten, inside
from rmpipe.journal import Execution, Journal
from rmpipe.store import Store, write_whole
from tasks.launch import make
from tasks.stage import Call, staleness

PACKAGES = (
    "torch", "transformers", "trl", "datasets", "mlflow", "prefect", "pandas", "numpy", "nltk", "rouge-score",
    "sacrebleu", "peft", "accelerate",
)  # fmt: skip
CURVES = "curves.jsonl"
Say = Callable[[str, str, Any], None]  # kind of event, address, what


@dataclass(frozen=True)
class Errand:
    """For whom a call is made: the study, its run in MLflow, and what is refused."""

    study: str = ""
    parent_run: str | None = None
    strict: bool = False
    refresh: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a call ended: `made`, `taken` (another process had made it), `failed`, or `died` with its worker."""

    address: str
    how: str
    seconds: float = 0.0
    error: str = ""
    trace: str = ""
    bad_input: bool = False
    again: bool = False
    notes: tuple[str, ...] = ()


@dataclass
class Log:
    """What a stage tells while it works.

    Attributes:
        scratch: a folder that survives a kill; a trainer's checkpoints go there, and the next run resumes from them,
            as do the curves so far.
    """

    address: str
    scratch: Path
    say: Say = lambda kind, address, what: None
    points: dict[tuple[str, int], tuple[float, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.read()

    def read(self) -> None:
        """Take the points that are written down, by this process or another."""
        self.points = {}
        with suppress(FileNotFoundError):
            for line in (self.scratch / CURVES).read_text().splitlines():
                with suppress(ValueError):  # the last line of a process that was killed while it wrote
                    name, value, step, at = json.loads(line)
                    self.points[name, step] = (value, at)

    @property
    def curve(self) -> list[tuple[str, float, int, int]]:
        """(name, value, step, milliseconds since the epoch), each step of a name once: the last that was told of it."""
        return [(name, value, step, at) for (name, step), (value, at) in self.points.items()]

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Points of the run's curves in MLflow."""
        now = int(time.time() * 1000)
        told = {(name, int(step or 0)): (float(value), now) for name, value in values.items()}
        self.points |= told
        with (self.scratch / CURVES).open("a") as file:  # a line begins anew, whatever a kill left of the one before
            file.writelines(f"\n{json.dumps([name, value, at, now])}" for (name, at), (value, now) in told.items())

    def progress(self, done: int, total: int) -> None:
        """How far it is."""
        self.say("progress", self.address, (done, total))


def perform(
    call: Call, store: Store, errand: Errand = Errand(), say: Say = lambda kind, address, what: None
) -> Outcome:
    """Make a call's artifact unless the store has it; wait when another process is making it.

    Raises:
        whatever the stage raises; nothing is then left at the address.
    """
    began = time.monotonic()
    with store.lock(call.address, waiting=lambda holder: say("wait", call.address, holder)):
        _settle(call.address, store)
        notes = tuple(staleness(call, store))
        refused = errand.refresh or (errand.strict and notes)
        if store.status(call.address) and not refused:
            return Outcome(call.address, "taken", notes=notes)
        say("start", call.address, call.title)
        with store.making(call.address) as part:
            log = Log(call.address, _scratch(call, store, errand), say)
            notes = _make(call, store, errand, log, part, began)
    return Outcome(call.address, "made", time.monotonic() - began, notes=notes)


def _settle(address: str, store: Store) -> None:
    """Close the run that a process left open here when it died."""
    if Journal(store.home).file(address).exists():
        from rmpipe.lineage import Ledger

        Ledger(store.home).settle(address)


def _scratch(call: Call, store: Store, errand: Errand) -> Path:
    """The folder of the address that survives a kill, emptied of what other code, inputs or packages left there."""
    folder = store.scratch(call.address)
    told = {"code": call.code, "read": _read(call)}
    told |= {name: surroundings()[name] for name in ("packages", "machine")}
    mark, made_with = folder / "made-with.json", json.dumps(told, sort_keys=True)
    if errand.refresh or not mark.exists() or mark.read_text() != made_with:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_whole(mark, made_with)
    return folder


def _read(call: Call) -> dict[str, str]:
    """The content of what a call reads."""
    return {need.address: need.content for need in call.needs}


def _make(call: Call, store: Store, errand: Errand, log: Log, part: Path, began: float) -> tuple[str, ...]:
    """Make the artifact and publish it; what a person should know of it."""
    from rmpipe.lineage import Ledger

    ledger = Ledger(store.home)
    entry = ledger.begin(_execution(call, errand))
    try:
        draft = make(call, part, log)
        record = _record(call, draft, entry.run_id, time.monotonic() - began) | {"study": errand.study}
        record |= store.seal(part)
        ledger.dress(entry, record, log.curve)
        store.publish(part, call.address, record)
    except BaseException as error:
        if (store.record(call.address) or {}).get("run_id") != entry.run_id:  # else it is in place: see `Ledger.settle`
            killed = isinstance(error, SystemExit | KeyboardInterrupt)
            ledger.fail(entry, f"{type(error).__name__}: {error}", killed=killed)
        raise
    return ledger.enter(entry)


def _record(call: Call, draft: Artifact, run_id: str, seconds: float) -> dict[str, Any]:
    return {
        **call.identity,
        "kind": call.stage.output.__name__,
        "title": call.title,
        "labels": {name: str(value) for name, value in call.labels.items()},
        "summary": draft.summary,
        "metrics": draft.metrics,
        "run_id": run_id,
        "seconds": round(seconds, 3),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "code": call.code,
        "read": _read(call),
        "runtime": runtime(call),
        "device": device(),
        **surroundings(),
    }


def runtime(call: Call) -> dict[str, Any]:
    """The configuration that stays outside identity: how it was run."""
    return {name: value for setting in call.stage.settings for name, value in _runtime(call.told[setting]).items()}


def _runtime(value: Any) -> dict[str, Any]:
    return {
        f"{where}.{name}" if where else name: str(getattr(section, name))
        for where, section in inside(value)
        for name, item in type(section).model_fields.items() if Runtime in item.metadata
    }  # fmt: skip


@cache
def surroundings() -> dict[str, Any]:
    """Commit, package versions, machine."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    return {
        "commit": commit.stdout.strip() or None,
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "machine": {"python": platform.python_version(), "processor": platform.machine(), "threads": _threads()},
    }


def _version(name: str) -> str | None:
    """None of a package that is not there, as an extra may not be."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def device() -> str:
    """What a stage of this process computes on, where it has looked."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch and torch.cuda.is_available() else "cpu"


def _threads() -> int:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else 0


def _execution(call: Call, errand: Errand) -> Execution:
    inputs = [
        (name, handle.address, handle.record["kind"], handle.record.get("model_id"))
        for name in call.stage.inputs
        for handle in handles(call.told[name])
    ]
    return Execution(
        stage=call.stage.name,
        address=call.address,
        title=call.title,
        kind=call.stage.output.__name__,
        params=flatten(call.identity["config"]),
        runtime=runtime(call),
        study=errand.study,
        labels={name: str(value) for name, value in call.labels.items()},
        inputs=inputs,
        parent_run=errand.parent_run,
        surroundings=surroundings(),
        subject=_subject(call),
        purpose=(call.stage.__doc__ or "").strip().partition("\n")[0],
    )


def _subject(call: Call) -> str | None:
    """The model id of the reward model that the numbers are about: the teacher, or the one that was measured."""
    told = call.told.get("teacher") or (call.told.get("scores") and call.told["scores"].inputs.get("reward_model"))
    if told is None and call.stage.output.__name__ == "Measurement":
        told = call.told.get("reward_model")
    return told.record.get("model_id") if told else None


# -- the pool -------------------------------------------------------------------------------------------------------


class Pool:
    """Worker processes that make artifacts, kept for the whole run.

    Args:
        store: where to.
        jobs: how many processes.
        threads: how many each computes with. Sums of another number of threads may differ in their last bits, so it is
            said, and does not follow from `jobs`: whatever runs side by side gives what it gives alone.
    """

    def __init__(self, store: Store, jobs: int, threads: int = 1):
        self.store, self.jobs, context = store, jobs, get_context("spawn")
        environment = {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",  # the last word when a worker is killed
        }
        os.environ.update(environment)  # before a worker imports torch
        self.events = context.Queue()
        given = (self.events, str(store.home), threads, os.getpid())
        self.executor = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=given)

    def warm(self, modules: Iterable[str]) -> None:
        """Start the workers now: they import trainers and stages while the rest gets ready.

        Args:
            modules: of the stages to come. Once they are imported, an edit changes nothing of what is under way.
        """
        for _ in range(self.jobs):
            self.executor.submit(_import, sorted(modules))

    def submit(self, call: Call, errand: Errand) -> Any:
        """A future of the call's `Outcome`; it never raises what the stage raised."""
        return self.executor.submit(_work, call, errand)

    def killed_at(self, address: str) -> bool:
        """Once a worker has died, and the others were ended for it: whether it was making this address."""
        for worker in list((self.executor._processes or {}).values()):
            worker.join(timeout=10)
        return self.store.left_behind(address)

    def close(self, *, at_once: bool) -> None:
        """Let the workers go; `at_once` ends what they do, and nothing half-written of theirs is left."""
        workers = list((self.executor._processes or {}).values())
        if at_once:
            for worker in workers:
                worker.terminate()
        self.executor.shutdown(wait=not at_once, cancel_futures=True)
        for worker in workers:
            worker.join(timeout=5)
            if worker.is_alive():
                worker.kill()
                worker.join()
            for part in glob.glob(f"{self.store.root}/*/.*.{worker.pid}.part"):
                shutil.rmtree(part, ignore_errors=True)
        self.events.close()
        self.events.cancel_join_thread()


_events: Any = None
_store: Store | None = None


def _begin(events: Any, home: str, threads: int, parent: int) -> None:
    global _events, _store
    _events, _store = events, Store(home)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and sends SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _speak_into(_store.home / "logs" / f"worker-{os.getpid()}.log")
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("MPLCONFIGDIR", str(_store.home / "matplotlib"))  # else its cache of fonts goes into $HOME
    import torch

    torch.set_num_threads(threads)


def _import(modules: list[str]) -> None:
    from importlib import import_module

    import transformers

    from rmpipe.lineage import warm

    warm()
    transformers.logging.set_verbosity_error()
    from trl import RLOOTrainer  # noqa: F401

    for module in modules:
        import_module(module)
    gc.freeze()  # trainers collect garbage at every start: half a second over all that was imported


def _where(error: BaseException) -> str:
    """The place in a study's own code that raised, where it was that."""
    ours = Path(__file__).parents[1]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    last = Path(frames[-1].filename) if frames else ours
    others = last.is_relative_to(ours) or last.is_relative_to(sys.base_prefix) or "site-packages" in last.parts
    return "" if others else f" ({last.name}:{frames[-1].lineno} in {frames[-1].name})"


def _speak_into(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    stream = file.open("a")
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    logging.getLogger("transformers").setLevel(logging.ERROR)


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(call: Call, errand: Errand) -> Outcome:
    assert _store is not None
    os.environ["RMPIPE_TASK"] = f"rmpipe run {errand.study}"
    try:
        return perform(call, _store, errand, lambda kind, address, what: _events.put((kind, address, what)))
    except Exception as error:
        trace, again = traceback.format_exc(), isinstance(error, call.stage.retry)
        print(trace, flush=True)
        text = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}{_where(error)}"
        return Outcome(
            call.address, "failed", error=text, trace=trace, bad_input=isinstance(error, StudyError), again=again
        )
