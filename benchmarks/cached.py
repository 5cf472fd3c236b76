"""A `rmpipe run` that finds everything made against `dvc repro` on a pipeline that is up to date, in one run.

    pip install -e '.[bench]'
    rmpipe run pocket
    python benchmarks/cached.py [STUDY] [--home .rmpipe] [--dvc PATH] [--stages 20] [--repeats 7]

Both are timed as a whole process, from its start to its end, as a person waits for it. The study, `pocket` if none is
named, must have been made in `--home`. That store is only read: the runs have a home of their own for the time being,
in which `store` is a link to it, since a run that has nothing to do leaves a note for MLflow in its home's journal, and
these notes are not worth keeping.

The rival's pipeline is made in a temporary folder: a chain of stages, each a `cp` with one dependency, one parameter
and one output, without git. It has fewer stages than `pocket`, and its files hold a few bytes. DVC's analytics and its
look for a newer version are switched off, so that neither tool pays for the network. `dvc` is that of `--dvc`, else the
one beside this Python, else the one on PATH; it may live in an environment of its own.

Both run once before the clock does, so that bytecode and files are at hand. The ratio is the median over repeats, each
with both in turn. A run that made anything, or failed, ends the script.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GOAL = 0.7
BAD_INPUT = 2


@dataclass(frozen=True)
class Tool:
    """A command with all that it needs, and what it prints when it had nothing to do."""

    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    says: str

    def __call__(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [*self.command, *more], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )

    def seconds(self, *more: str) -> float:
        """How long it takes to find that there is nothing to do."""
        begun = time.perf_counter()
        done = self(*more)
        seconds = time.perf_counter() - begun
        if done.returncode or self.says not in done.stdout:
            sys.exit(f"{' '.join([*self.command, *more])} did not say {self.says!r}:\n{done.stdout}{done.stderr}")
        return seconds


def found(name: str, given: str | None = None) -> str:
    """A program: the one given, the one beside this Python, or the one on PATH."""
    beside = Path(sys.executable).with_name(name)
    path = shutil.which(given or (str(beside) if beside.exists() else name))
    if path is None:
        complain(f"{given or name}: no such program; first: pip install -e '.[bench]', or name it by --{name}")
    return str(Path(path).absolute())


def complain(text: str) -> None:
    """End the script: what it was given will not do."""
    print(text, file=sys.stderr)
    sys.exit(BAD_INPUT)


def environment(**more: str) -> dict[str, str]:
    """This process's variables and some more; bytecode is written, since without it modules are compiled every time."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **more}


# -- ours -----------------------------------------------------------------------------------------------------------


def rmpipe(home: Path, folder: Path) -> Tool:
    """`rmpipe` in a home of its own, whose store is a link to that of `home`."""
    folder.mkdir()
    (folder / "store").symlink_to(home.absolute() / "store")
    told = environment(RMPIPE_HOME=str(folder))
    return Tool((found("rmpipe"),), Path.cwd(), told, "nothing had to run")


def made(tool: Tool, study: str, home: Path) -> int:
    """How many stages the study has; the script ends if any is still to be made."""
    done = tool("plan", study, "--json")
    if done.returncode:
        complain(done.stderr.strip())
    plan = json.loads(done.stdout)
    total = len(plan["stages"])
    if plan["to_run"]:
        first = f"RMPIPE_HOME={home} rmpipe run {study}"
        complain(f"{plan['to_run']} of {total} stages of {study} are not in {home}; first: {first}")
    return total


# -- the rival ------------------------------------------------------------------------------------------------------


def dvc(program: str, folder: Path, stages: int) -> Tool:
    """`dvc` in a folder with a pipeline that has been run."""
    folder.mkdir()
    places = {name: str(folder.with_suffix(f".{name.lower()}")) for name in ("GLOBAL", "SYSTEM", "SITE")}
    told = environment(
        DVC_NO_ANALYTICS="1", DVC_GLOBAL_CONFIG_DIR=places["GLOBAL"], DVC_SYSTEM_CONFIG_DIR=places["SYSTEM"],
        DVC_SITE_CACHE_DIR=places["SITE"],
    )  # fmt: skip
    tool = Tool((program,), folder, told, "up to date")
    write_pipeline(folder, stages)
    network = [("config", f"core.{name}", "false") for name in ("analytics", "check_update")]
    for arguments in (("init", "--no-scm"), *network, ("repro",)):
        done = tool(*arguments)
        if done.returncode:
            sys.exit(f"dvc {' '.join(arguments)}: {done.stderr}")
    return tool


def write_pipeline(folder: Path, stages: int) -> None:
    """A source, parameters, and a chain of stages that copy it on."""
    (folder / "0.txt").write_text("source\n")
    (folder / "params.yaml").write_text("".join(f"value{number}: {number}\n" for number in range(1, stages + 1)))
    chain = {
        f"stage{number}": {
            "cmd": f"cp {number - 1}.txt {number}.txt",
            "deps": [f"{number - 1}.txt"],
            "params": [f"value{number}"],
            "outs": [f"{number}.txt"],
        }
        for number in range(1, stages + 1)
    }
    (folder / "dvc.yaml").write_text(json.dumps({"stages": chain}, indent=1))  # JSON is YAML


# -- both -----------------------------------------------------------------------------------------------------------


def compare(theirs: Tool, mine: Tool, study: str, repeats: int) -> list[tuple[float, float]]:
    """Seconds of both in each repeat, after one that does not count."""
    return [(theirs.seconds("repro"), mine.seconds("run", study)) for _ in range(repeats + 1)][1:]


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description="a fully cached run against dvc repro")
    parser.add_argument("study", nargs="?", default="pocket", metavar="STUDY", help="already made in --home")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("RMPIPE_HOME") or ".rmpipe"))
    parser.add_argument("--dvc", metavar="PATH", help="default: beside this Python, or on PATH")
    parser.add_argument("--stages", type=int, default=20, help="of the rival's pipeline")
    parser.add_argument("--repeats", type=int, default=7)
    told = parser.parse_args()
    program = found("dvc", told.dvc)
    with tempfile.TemporaryDirectory() as name:
        mine = rmpipe(told.home, Path(name) / "rmpipe")
        stages = made(mine, told.study, told.home)
        theirs = dvc(program, Path(name) / "dvc", told.stages)
        print(f"{told.study}: {stages} stages; dvc {theirs('--version').stdout.strip()}: {told.stages} stages")
        print(f"dvc repro  rmpipe run    ratio (goal: {GOAL} at most)")
        pairs = compare(theirs, mine, told.study, told.repeats)
        seconds = [statistics.median(column) for column in zip(*pairs, strict=True)]
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"{seconds[0]:7.2f} s  {seconds[1]:8.2f} s  {ratio:5.2f} x")


if __name__ == "__main__":
    main()
