"""docs/models.md: its commands, in order, on a model and pairs of a size for tests."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rmpipe import world
from rmpipe.study import Study

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "models.md").read_text()
SMALL = (
    "dataset.limit=40", "sampling.prompts=4", "sampling.responses=2", "sampling.max_new_tokens=6",
    "evaluation.prompts=4", "evaluation.responses=2", "reward_models.trained.training.steps=4", "measuring.draws=100",
    "algorithms.rloo.steps=2", "algorithms.rloo.prompts_per_step=2", "algorithms.rloo.samples_per_prompt=2",
    "algorithms.rloo.max_new_tokens=6", "algorithms.rloo.evaluations=2", "foresight.fewest=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command of the page printed, by its verb, in a folder that has what the page names."""
    place = tmp_path_factory.mktemp("place")
    world.new_model(3, hidden=32, layers=1, heads=2).save_pretrained(place / "MODEL")
    world.tokenizer().save_pretrained(place / "MODEL")
    rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in world.preferences(1, 120)]
    rows.append({"prompt": "tell " * 90, "chosen": " it" * 90, "rejected": " it"})  # which no model here holds
    (place / "PAIRS.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = {}
    for line in [line for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]:
        words = shlex.split(line.removeprefix("$ rmpipe "))
        small = [f"--set={change}" for change in SMALL] if words[0] != "new" else []
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *words, *small], cwd=place, capture_output=True, text=True, check=False,
            env=os.environ | {"RMPIPE_HOME": str(place / "home"), "PYTHONPATH": str(REPOSITORY)}, timeout=400,
        )  # fmt: skip
        told[words[0]] = done.stdout
        if words[0] != "audit":  # which may find fault with a reward model that has hardly been trained
            assert done.returncode == 0, f"{line}\n{done.stderr}{done.stdout}"
        if "--to-label" in words:
            _label(place / words[words.index("--to-label") + 1])
    Study.read(place / "mine.toml").check_sources()
    return told


def _label(file: Path) -> None:
    """Put a number in place of each null: here, the longer the better."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("\n".join(json.dumps(row | {"label": len(row["response"])}) for row in rows))


def test_the_page_leads_from_a_model_to_a_ranking(said):
    assert list(said) == ["new", "doctor", "plan", "forecast", "run", "audit"]
    assert "stages to run" in said["plan"]
    assert re.search(r"^\d=? +(trained|length)", said["run"], re.MULTILINE), said["run"]


def test_a_forecast_is_made_from_labels_of_ones_own(said):
    assert "labels of your own" in said["forecast"]
    assert re.search(r"^(\d=?|\?) +trained", said["forecast"], re.MULTILINE), said["forecast"]


def test_what_the_page_shows_of_new_is_what_it_prints(said):
    shown = re.search(r"```\n(policy .*?)```", PAGE, re.DOTALL)[1]
    for line in shown.splitlines():
        begin = re.split(r"[\d:]", line)[0].strip()
        assert begin in said["new"], begin
