"""A tiny study, run once by each process of tests through the command line; most tests only read what it left.

How it looks: `tiny` is the finished place, `another` makes a copy of it that a test may alter.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from rmpipe.lineage import Ledger
from rmpipe.moving import settle_in

REPOSITORY = Path(__file__).parents[1]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several threads only wait for one another on models as small as ours


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process for each core, four at most, which share out the files of a folder; files that are named stay here."""
    named = all(".py" in argument for argument in config.args)
    return 0 if named else min(4, os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long are begun first, so that no core is left with one of them while the others are idle."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


TINY = """
name = "tiny"
question = "Which reward model teaches this policy best?"
seeds = [1]
ground_truth = "truth"

[dataset]
source = "world"
pairs = 80

[bases.world]
kind = "world"
documents = 400
hidden = 32
layers = 1
heads = 2
[bases.world.training]
steps = 20
batch_size = 16
optimiser = { name = "adamw", learning_rate = 4e-3 }

[policies.weak]
base = "world"
demonstrations = { source = "world", quality = "weak", count = 60 }
[policies.weak.finetuning]
steps = 5
batch_size = 8
optimiser = { name = "adamw", learning_rate = 1e-3 }

[policies.strong]
base = "world"
demonstrations = { source = "world", quality = "strong", count = 60 }
[policies.strong.finetuning]
steps = 5
batch_size = 8
optimiser = { name = "adamw", learning_rate = 1e-3 }

[reward_models.truth]
kind = "truth"
function = "world"

[reward_models.offset]
kind = "offset"
of = "truth"
std = 0.8
seed = 7

[reward_models.off]
kind = "explicit"
base = "weak"
[reward_models.off.training]
steps = 4
batch_size = 8
optimiser = { name = "adamw", learning_rate = 1e-3 }

[sampling]
responses = 4
prompts = 8
max_new_tokens = 12

[evaluation]
prompts = 6
responses = 2

[measuring]
draws = 100

[algorithms.rloo]
kind = "rloo"
steps = 3
prompts_per_step = 4
samples_per_prompt = 2
max_new_tokens = 12
evaluations = 2
optimiser = { name = "sgd", learning_rate = 4e-3, clip = 0 }
"""


@dataclass
class Started:
    """A command under way, in a session of its own, so that it can be treated as a terminal would."""

    process: subprocess.Popen[str]
    errors: Path
    output: Path

    def said(self) -> str:
        """Its standard error so far."""
        return self.errors.read_text()

    def ended(self, timeout: float = 240) -> int:
        """Wait for its end; the exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            raise AssertionError(f"it never ended; it said:\n{self.said()}") from None

    def signal(self, number: int) -> None:
        """To every process in the foreground, as a terminal sends Ctrl-C."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@dataclass
class Place:
    """A working folder with a study, a store of its own, and a home folder that must stay empty."""

    folder: Path
    started: list[Started] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """What RMPIPE_HOME names."""
        return self.folder / "state"

    @property
    def file(self) -> Path:
        """The study."""
        return self.folder / "tiny.toml"

    @property
    def user(self) -> Path:
        """What HOME names."""
        return self.folder / "user"

    def lay(self) -> Place:
        """Write the study and the empty folders."""
        self.user.mkdir(parents=True)
        self.file.write_text(TINY)
        return self

    def environment(self) -> dict[str, str]:
        """Ours, without what a person may have said of MLflow, Prefect or rmpipe."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "RMPIPE_", "XDG_"))}
        ours = {
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{self.folder}",
            "RMPIPE_HOME": str(self.home),
            "HOME": str(self.user),
        }
        kept.pop("MPLCONFIGDIR", None)
        return kept | ours

    def start(self, *arguments: str) -> Started:
        """Begin `rmpipe ...` in the working folder."""
        number = len(list(self.folder.glob("*.err")))
        errors, output = self.folder / f"{number}.err", self.folder / f"{number}.out"
        with errors.open("w") as err, output.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *arguments], cwd=self.folder, env=self.environment(),
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True, start_new_session=True,
            )  # fmt: skip
        self.started.append(Started(process, errors, output))
        return self.started[-1]

    def rmpipe(self, *arguments: str, code: int = 0) -> Started:
        """Run `rmpipe ...` to its end, which must have this exit code."""
        run = self.start(*arguments)
        found = run.ended()
        assert found == code, f"exit code {found}, not {code}; it said:\n{run.said()}"
        return run

    def records(self, stage: str = "*") -> dict[str, dict[str, Any]]:
        """Address -> record."""
        files = self.home.glob(f"store/{stage}/[0-9a-f]*/record.json")
        return {f"{file.parts[-3]}/{file.parts[-2]}": json.loads(file.read_text()) for file in sorted(files)}

    def address(self, stage: str, **labels: str) -> str:
        """The one artifact of a stage with these labels, and no others but the seed."""
        wanted = {**labels, "seed": "1"}
        (found,) = (key for key, record in self.records(stage).items() if record["labels"] == wanted)
        return found

    def contents(self) -> dict[str, str]:
        """Address -> SHA-256 over its files."""
        return {address: record["content"] for address, record in self.records().items()}

    def remove(self, *addresses: str) -> None:
        """Take artifacts out of the store."""
        for address in addresses:
            shutil.rmtree(self.home / "store" / address)

    def processes(self) -> list[str]:
        """The command lines of all processes that work on this store.

        Not that of Python's own resource tracker: nobody waits for it, and it ends a moment after those it serves.
        """
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get("RMPIPE_HOME") == str(self.home):
                    found.append(f"{process.pid} {' '.join(process.cmdline())}")
        return [line[:120] for line in found if "multiprocessing.resource_tracker" not in line]

    def leftovers(self) -> list[Path]:
        """Locks and half-written artifacts."""
        return [*self.home.glob("locks/*"), *self.home.glob("store/*/.*")]

    def clear(self) -> None:
        """End what a test left running on this store."""
        for line in self.processes():
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)


def until(found: Callable[[], Any], what: str, seconds: float = 120, every: float = 0.005) -> Any:
    """Wait until something is there; its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(every)
    raise AssertionError(f"never came: {what}")


@pytest.fixture(scope="session", name="until")
def _until() -> Callable[..., Any]:
    return until


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The finished study; to be read only. `0.out` is what `run --json` printed, `0.err` what it said meanwhile."""
    place = Place(tmp_path_factory.mktemp("tiny")).lay()
    place.rmpipe("run", "tiny.toml", "--jobs", "2", "--json")
    return place


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Place]]:
    """Makes a place: an empty one, or a copy of another with its store."""
    made: list[Place] = []

    def make(of: Place | None = None) -> Place:
        place = Place(tmp_path_factory.mktemp("place")).lay()
        made.append(place)
        if of is not None:
            shutil.copytree(of.home, place.home, symlinks=True)
            settle_in(place.home)
        return place

    yield make
    for place in made:
        place.clear()


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database as a new store has it, made once: the migrations to make it take a second."""
    home = tmp_path_factory.mktemp("empty")
    Ledger(home).prepare()
    return home / "mlflow.db"


@pytest.fixture
def begun(tmp_path: Path, empty: Path) -> Path:
    """A folder to be a home, with an empty database of MLflow's."""
    shutil.copy(empty, tmp_path)
    return tmp_path


@pytest.fixture
def another(tiny: Place, places: Callable[..., Place]) -> Place:
    """A copy of the finished study that a test may alter."""
    return places(tiny)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium that reaches this machine alone; a page of it is what a person sees."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on this machine; Debian's package `chromium` has it")
    quiet = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--hide-scrollbars",
             "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")  # fmt: skip
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(quiet))
        yield browser
        browser.close()
