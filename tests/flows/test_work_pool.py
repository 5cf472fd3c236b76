"""A Prefect server that others run, and a work pool: what `prefect.yaml` and `--pool` register, a worker computes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SERVER = """
import sys
from pathlib import Path
from flows.server import using
with using(Path(sys.argv[1])) as api:
    print(api, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def team(places, tmp_path_factory):
    """A team's server, and the place of one who computes; what PREFECT_API_URL names is in its environment."""
    home = tmp_path_factory.mktemp("team")
    place = places()
    command = [sys.executable, "-c", SERVER, str(home)]
    server = subprocess.Popen(
        command, env=place.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    api = server.stdout.readline().strip()
    os.environ["PREFECT_API_URL"] = api
    place.environment_of = {"PREFECT_API_URL": api, "PREFECT_HOME": str(home / "client"), "DO_NOT_TRACK": "true"}
    yield place
    os.environ.pop("PREFECT_API_URL")
    server.communicate("\n", timeout=60)


def prefect(place, *arguments: str, folder: Path | None = None) -> str:
    """What one of Prefect's own commands says."""
    run = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments], cwd=folder or place.folder,
        env=place.environment() | place.environment_of, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def ask(place, path: str, **body: Any) -> Any:
    """The server's answer, without the seconds that a command of Prefect's takes to start.

    A server whose database is busy says 503, come again; Prefect's own clients do so five times.
    """
    url, kind = f"{place.environment_of['PREFECT_API_URL']}/{path}", {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, kind)
    for patience in (2, 4, 8, 16, 0):
        try:
            return json.load(urllib.request.urlopen(request, timeout=60))
        except urllib.error.HTTPError as error:
            if error.code != 503 or not patience:
                raise
            time.sleep(patience)


@pytest.fixture(scope="module")
def worked(team):
    """The pool, both ways to register, and what a worker made of a run of each."""
    prefect(team, "work-pool", "create", "rmpipe", "--type", "process")
    told = team.environment_of
    run = subprocess.run(
        [sys.executable, "-m", "flows.cli", "schedule", "tiny.toml", "--cron", "0 3 1 1 *", "--only", "prepare",
         "--pool", "rmpipe", "--jobs", "1"],
        cwd=team.folder, env=team.environment() | told, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    team.registered = run.stdout
    project = team.folder / "project"
    shutil.copytree(ROOT / "flows", project / "flows")
    shutil.copy(ROOT / "prefect.yaml", project)
    prefect(team, "deploy", "--all", folder=project)
    for name, less in {"tiny": {}, "pocket": {"changes": ["seeds=[1]"], "only": ["prepare"]}}.items():
        deployment = ask(team, f"deployments/name/teach/{name}")["id"]
        ask(team, f"deployments/{deployment}/create_flow_run", parameters=less)
    prefect(team, "worker", "start", "--pool", "rmpipe", "--run-once")
    return ask(team, "flow_runs/filter", limit=200)


def test_a_schedule_of_a_pool_is_registered_at_the_servers_and_not_served_here(team, worked):
    assert team.registered == "tiny: the workers of rmpipe run it\n"
    assert not (team.home / "prefect" / "server.json").exists()


def test_a_worker_runs_what_the_pool_holds(team, worked):
    ended = [run for run in worked if run["state_name"] not in ("Scheduled", "Late")]
    assert [run["state_name"] for run in ended] == ["Completed", "Completed"], [
        run["state"]["message"] for run in ended
    ]
    assert len(team.records("prepare")) == 2  # the study of the pool, and the one of prefect.yaml


def test_a_pool_that_is_not_there_is_refused_with_the_nearest(team, worked):
    run = subprocess.run(
        [sys.executable, "-m", "flows.cli", "schedule", "tiny.toml", "--every", "6h", "--pool", "rmpip"],
        cwd=team.folder, env=team.environment() | team.environment_of, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2
    assert "did you mean rmpipe?" in run.stderr
