"""Stages that several processes make: what comes out is what one makes, and an end of one is an end of all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

pytest.importorskip("torch")

from rmpipe.algorithm import Finetuning
from rmpipe.artifact import Preferences, RewardModel, Scores, Weights
from rmpipe.config import StudyError
from rmpipe.explicit import Explicit
from rmpipe.reinforcement import Rloo
from rmpipe.reward import Truth
from rmpipe.study import WorldBase
from tasks.derive import save_kind
from tasks.execution import Log
from tasks.launch import make, processes, raised
from tasks.stage import Call

pytestmark = pytest.mark.slow

STANDIN = Path(__file__).parents[1] / "standin" / "launch"
SGD = {"name": "sgd", "learning_rate": 0.05}
STEPS = 5


@pytest.fixture(scope="module")
def stages() -> Any:
    """The module of stages, where other processes find it as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(STANDIN)
        yield __import__("stages")
    sys.modules.pop("stages")


@pytest.fixture(scope="module")
def told(base: Any, pairs: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the trainings are told, by handles that can be sent."""
    home = tmp_path_factory.mktemp("told")
    (home / "model").symlink_to(base.model)
    rows = pairs(32, 8).table()
    copies = [rows[:32].assign(split="policy"), rows]
    pd.concat(copies).to_parquet(home / "preferences.parquet")
    save_kind(Truth(function="world"), home)
    (home / "record.json").write_text(json.dumps({"inputs": {}}))
    np.save(home / "rollouts.npy", np.arange(8.0).reshape(4, 2))
    return {
        "base": Weights.at(home), "preferences": Preferences.at(home), "teacher": RewardModel.at(home),
        "scores": Scores.at(home),
    }  # fmt: skip


def made(call: Call, folder: Path) -> tuple[Any, Log]:
    """What a call makes in a new `out`, and in the `scratch` of before, with its log."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    heard: list[Any] = []
    log = Log("stage/0", folder / "scratch", lambda kind, address, what: heard.append(what))
    log.heard = heard  # type: ignore[attr-defined]
    return make(call, folder / "out", log), log


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(folder / "model" / "model.safetensors")


def alike(one: Path, other: Path) -> bool:
    mine, yours = weights(one), weights(other)
    return mine.keys() == yours.keys() and all(np.allclose(mine[k], yours[k], atol=1e-6) for k in mine)


def test_two_processes_end_where_one_does_and_go_on_from_its_checkpoint(stages, told, tmp_path):
    batched = {"steps": STEPS, "batch_size": 8, "optimiser": SGD}
    config = stages.Trainings(
        finetuning=Finetuning(**batched, checkpoint_seconds=0),
        explicit=Explicit(base="a", training={**batched, "head": "random", "checkpoint_seconds": 0.02}),
        rloo=Rloo(steps=2, prompts_per_step=2, samples_per_prompt=2, max_new_tokens=6, evaluations=3, optimiser=SGD),
    )
    made(Call(stages.trainings, {"config": config, **told}), tmp_path / "one")
    begun = tmp_path / "two" / "scratch" / "trainer"
    shutil.copytree(tmp_path / "one" / "scratch" / "trainer", begun)
    shutil.rmtree(begun / f"checkpoint-{STEPS - 1}")
    call = Call(stages.trainings, {"config": config.model_copy(update={"processes": 2}), **told})
    draft, log = made(call, tmp_path / "two")

    alone, first = tmp_path / "one" / "out", tmp_path / "two" / "out"
    second = tmp_path / "two" / "scratch" / "ranks" / "1" / "out"
    assert (draft.summary, draft.metrics) == ("by 2", {"world": 2.0})
    assert ("resumed_from", STEPS - 2) in [point[:2] for point in log.curve]
    assert {file.name for file in begun.glob("*/rng_state_*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    assert (STEPS, STEPS) in log.heard
    for name in ("finetuned", "trained"):
        assert alike(first / name, alone / name)
        assert not alike(first / name, told["base"].path)
    looks, seen, once = (pd.read_parquet(out / "aligned" / "curve.parquet") for out in (first, second, alone))
    assert list(looks["step"]) == [0, 1, 2]
    assert looks.notna().all(axis=None)
    assert looks.equals(seen)
    assert looks.iloc[0].to_list() == pytest.approx(once.iloc[0].to_list(), abs=1e-5)
    assert not list((tmp_path / "two" / "scratch" / "ranks").glob("error*"))


def test_what_one_process_raises_ends_all_and_comes_back(stages, tmp_path):
    with pytest.raises(StudyError) as caught:
        made(Call(stages.share, {"config": stages.Sharing(fails=True)}), tmp_path)
    assert str(caught.value) == "training.steps: too many; take fewer"
    assert "in share" in "".join(caught.value.__notes__)


def test_an_error_that_cannot_be_sent_comes_back_by_what_it_says(stages):
    error = pickle.loads(raised(stages.UnsendableError("here", "wrong")))
    assert (type(error), str(error)) == (RuntimeError, "UnsendableError: wrong at here")


def test_no_process_outlives_the_one_that_started_them(stages, tmp_path, until):
    code = """if True:
        import sys, stages
        from pathlib import Path
        from tasks.execution import Log
        from tasks.launch import make
        from tasks.stage import Call
        home = Path(sys.argv[1])
        make(Call(stages.share, {"config": stages.Sharing()}), home, Log("stage/0", home))"""
    told = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=told)
    files = [tmp_path / "pid", tmp_path / "ranks" / "1" / "pid"]
    until(lambda: all(file.exists() and file.read_text() for file in files), "two processes")
    begun = [psutil.Process(int(file.read_text())) for file in files]
    begun.append(begun[0].parent())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert not psutil.wait_procs(begun, timeout=30)[1]


def test_a_call_says_how_many_make_it(stages):
    batched = {"steps": 1, "optimiser": SGD, "batch_size": 4, "processes": 2}
    world = WorldBase(training=batched)
    for config in (Finetuning(**batched), Explicit(base="a", training=batched), world):
        assert processes(Call(stages.share, {"config": config})) == 2
    assert processes(Call(stages.share, {"seed": 1})) == 1


def test_more_processes_than_gpus_are_refused(stages, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(StudyError, match=r"^processes: 2, and this machine has 1 GPUs"):
        made(Call(stages.share, {"config": stages.Sharing()}), tmp_path)
