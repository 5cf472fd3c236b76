"""MLflow for a team: two people, each with a store of their own, and one server that `mlflow/serve` starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from rmpipe.config import StudyError
from rmpipe.lineage import model_path

pytestmark = pytest.mark.slow

SERVE = Path(__file__).parents[1] / "mlflow" / "serve"


@dataclass
class Team:
    """A server under way, and what it keeps."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def uri(self) -> str:
        """What people give as MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self.port}"

    def says(self, path: str, **question: Any) -> dict[str, Any]:
        """MLflow's answer to a question."""
        body, kind = json.dumps(question).encode() if question else None, {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.uri}/api/2.0/mlflow/{path}", body, kind)
        return json.load(urllib.request.urlopen(request, timeout=30))

    def runs(self, experiment: dict[str, Any]) -> list[dict[str, Any]]:
        """Every run of an experiment."""
        return self.says("runs/search", experiment_ids=[experiment["experiment_id"]]).get("runs", [])

    def experiments(self) -> dict[str, dict[str, Any]]:
        """By name."""
        return {each["name"]: each for each in self.says("experiments/search", max_results=100)["experiments"]}


def healthy(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, until: Callable[..., Any]) -> Iterator[Team]:
    """A server whose folder has a name that needs quoting."""
    folder = tmp_path_factory.mktemp("team") / "the team's"
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with (folder.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            [SERVE, folder, "--port", str(port), "--workers", "1"], cwd=folder.parent, env=environment,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: healthy(port) or process.poll() is not None, "the server", every=0.1)
        assert process.poll() is None, (folder.parent / "log").read_text()
        yield Team(folder, port, process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_what_two_people_make_arrives_at_one_server(
    team: Team, places: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    people, begun = [places(), places()], []
    for place, last in zip(people, ("train", "prepare"), strict=True):
        ours = place.environment() | {"MLFLOW_TRACKING_URI": team.uri}
        monkeypatch.setattr(place, "environment", lambda ours=ours: ours)
        begun.append(place.start("run", "tiny.toml", "--only", last, "--jobs", "2"))
    for place, run in zip(people, begun, strict=True):
        assert run.ended() == 0, run.said()
        assert "MLflow did not take it" not in run.said()
        assert not list(place.home.glob("journal/executions/*.json"))
    experiments = team.experiments()
    assert {"prepare", "study"} <= set(experiments)
    for experiment in experiments.values():  # nobody's home, and nowhere that only the server may write
        assert experiment["artifact_location"].startswith("mlflow-artifacts:/")
    for name, count in {"prepare": 2, "study": 2, "pretrain": 1, "finetune": 1, "derive": 1, "train": 1}.items():
        assert [run["info"]["status"] for run in team.runs(experiments[name])] == ["FINISHED"] * count
    prepared = team.runs(experiments["prepare"])
    assert all(run["data"]["metrics"] and run["inputs"]["dataset_inputs"] for run in prepared)
    texts = {file.parts[-3] for file in team.folder.glob("artifacts/*/*/artifacts/texts.json")}
    assert texts >= {run["info"]["run_id"] for run in prepared}
    for place in people:
        assert not (place.home / "mlflow.db").exists()
        assert not (place.home / "mlflow-artifacts").exists()
    uri = "models:/tiny-reward-model-off@seed-1"
    (version,) = team.says("model-versions/search?filter=name%3D%27tiny-reward-model-off%27")["model_versions"]
    assert version["source"].startswith("models:/m-")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.uri)
    trained = people[0].address("train", reward_model="off")
    assert model_path(uri, people[0].home) == people[0].home / "store" / trained / "model"
    with pytest.raises(StudyError, match="rmpipe import"):
        model_path(uri, people[1].home)


def test_a_folder_is_served_by_one_server(team: Team):
    second = subprocess.run([SERVE, team.folder], capture_output=True, text=True, check=False)
    assert (second.returncode, "is being served already" in second.stderr) == (2, True)


@pytest.mark.parametrize("words", [["--host", "0.0.0.0"], ["--host=10.0.0.1"], ["-h0.0.0.0"], ["-h", "::"]])
def test_a_door_to_others_needs_the_names_it_is_asked_by(tmp_path: Path, words: list[str]):
    refused = subprocess.run([SERVE, tmp_path / "new", *words], capture_output=True, text=True, check=False)
    assert (refused.returncode, "--allowed-hosts" in refused.stderr) == (2, True)
    assert not (tmp_path / "new").exists()


def test_what_the_server_keeps_is_its_own_to_read(team: Team):
    assert {path.name for path in team.folder.iterdir()} >= {"mlflow.db", "serve.lock"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (team.folder, *team.folder.rglob("*")))


def test_sigterm_ends_the_whole_server(team: Team, until: Callable[..., Any]):
    group = [each for each in psutil.process_iter() if _group(each) == team.process.pid]
    assert len(group) >= 2
    team.process.terminate()
    team.process.wait(timeout=60)
    until(lambda: not any(each.is_running() for each in group), "the end of its processes", seconds=20)


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return 0
