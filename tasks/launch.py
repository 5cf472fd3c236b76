"""A stage made by several processes at once, each of which runs the stage's function.

`torchrun` starts them; TRL's trainers then share a step's rows among them and average what they learn. Process r of w
is given the batches r, r + w, r + 2w ... of the order that one process would have had, whether it is shuffled or not,
so that a step learns from the same rows, and the end is the same up to rounding. One step differs: where the rows do
not fill the last step of a pass over them, several processes fill it up with the first rows of that pass.

The first process alone writes the artifact, and tells metrics and progress. The others write into folders that are
thrown away; they share the folder of the trainer's checkpoints.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmpipe.artifact import Artifact
from rmpipe.config import StudyError

if TYPE_CHECKING:
    from tasks.execution import Log
    from tasks.stage import Call

RANKS = "ranks"
"""The folder, below a stage's scratch, in which the processes find their call and leave what came of it."""
TRAINER = "trainer"
"""The folder of a trainer's checkpoints, below a stage's scratch."""


def make(call: Call, out: Path, log: Log) -> Artifact:
    """Run a call's stage, in as many processes as its configuration says.

    Returns:
        what the stage returns, of the first process.

    Raises:
        StudyError: more processes than the machine has GPUs, if it has any; or what a process raised.
        RuntimeError: a process ended without a word.
        Exception: whatever else a process raised.
    """
    if (count := processes(call)) == 1:
        return call.stage.function(**call.told, out=out, log=log)
    _check_devices(count)
    folder = _lay(call, out, log.scratch, count)
    _run(folder, count, log)
    log.read()
    return pickle.loads((folder / "made.pickle").read_bytes())


def processes(call: Call) -> int:
    """How many processes a call is made by."""
    config = call.told.get("config")
    return int(getattr(getattr(config, "training", config), "processes", 1))


def _check_devices(count: int) -> None:
    import torch

    if torch.cuda.is_available() and (there := torch.cuda.device_count()) < count:
        raise StudyError(f"processes: {count}, and this machine has {there} GPUs, of which each takes one; lower it")


def _lay(call: Call, out: Path, scratch: Path, count: int) -> Path:
    """Write down what the processes do, in a folder without the words of earlier ones."""
    folder = scratch / RANKS
    folder.mkdir(exist_ok=True)
    for left in folder.glob("*.*"):
        left.unlink()
    (scratch / TRAINER).mkdir(exist_ok=True)
    told = (call.stage.module, call.stage.name, call.told, call.address, out)
    (folder / "call.pickle").write_bytes(pickle.dumps(told))
    return folder


def _run(folder: Path, count: int, log: Log) -> None:
    """Start the processes, tell their progress, and wait for their end; none outlives this one.

    They read from a pipe that this process alone holds, and end when it closes, however this process ends.
    """
    import torch

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TRANSFORMERS_VERBOSITY": "error",
    }
    if not torch.cuda.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"
    torch.cuda.empty_cache()  # what this process holds of the devices is theirs now
    with subprocess.Popen(
        [*command, "-m", "tasks.launch", str(folder)], env=environment, stdin=subprocess.PIPE, start_new_session=True
    ) as launcher:
        while launcher.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                launcher.wait(0.5)
            _hear(folder, log)
    if errors := sorted(folder.glob("error.*"), key=lambda file: file.stat().st_mtime_ns):
        raise pickle.loads(errors[0].read_bytes())
    if launcher.returncode:
        told = f"one of {count} processes ended without a word, as for want of memory"
        raise RuntimeError(f"{told} (torchrun's exit code {launcher.returncode})")


def _hear(folder: Path, log: Log) -> None:
    """Tell how far the first process is, once."""
    with suppress(FileNotFoundError):
        told = (folder / "progress.json").rename(folder / "heard.json").read_text()
        log.progress(*json.loads(told))


# -- one of the processes -----------------------------------------------------------------------------------------


def _work(folder: Path, rank: int) -> None:
    """Do one process's share of the work."""
    import torch
    from torch import distributed

    from tasks.execution import Log

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    module, name, told, address, out = pickle.loads((folder / "call.pickle").read_bytes())
    if rank:
        out, log = _elsewhere(folder, rank, address)
    else:
        log = Log(address, folder.parent, lambda kind, address, what: _tell(folder, what))
    draft = getattr(import_module(module), name).function(**told, out=out, log=log)
    if rank == 0:
        (folder / "made.pickle").write_bytes(pickle.dumps(draft))
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _elsewhere(folder: Path, rank: int, address: str) -> tuple[Path, Log]:
    """Where a process writes that is not the first, and what it tells, which nobody hears."""
    from tasks.execution import Log

    scratch = folder / str(rank)
    scratch.mkdir(exist_ok=True)
    if not (scratch / TRAINER).is_symlink():
        (scratch / TRAINER).symlink_to(Path("..", "..", TRAINER))
    shutil.rmtree(scratch / "out", ignore_errors=True)
    (scratch / "out").mkdir()
    return scratch / "out", Log(address, scratch)


def _tell(folder: Path, done: Any) -> None:
    (folder / "progress.part").write_text(json.dumps(done))
    (folder / "progress.part").rename(folder / "progress.json")


def raised(error: Exception) -> bytes:
    """An error as another process can raise it again, with its trace."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of a class that keeps what cannot be sent, or asks for more than its message
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(traceback.format_exc())
    return pickle.dumps(error)


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written: it returns when the pipe is closed
    os._exit(1)


def main() -> None:
    """One of the processes that `make` starts: `python -m tasks.launch FOLDER`."""
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _work(folder, rank)
    except Exception as error:
        part = folder / f"part.{rank}"
        part.write_bytes(raised(error))
        part.rename(folder / f"error.{rank}")
        sys.exit(1)


if __name__ == "__main__":
    main()
