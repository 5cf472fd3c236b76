"""The question `displace`, from a study file to its answer, with a similarity and a subset beside the study."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rmpipe.artifact import open_artifact

REPOSITORY = Path(__file__).parents[2]

STUDY = """
name = "displaced"
flow = "displace"
seeds = [1]
ground_truth = "truth"

[dataset]
source = "world"
pairs = 60
policy_fraction = 0
test_fraction = 0.2

[bases.world]
kind = "world"
documents = 200
hidden = 32
layers = 1
heads = 2
[bases.world.training]
steps = 10
batch_size = 16
optimiser = { name = "adamw", learning_rate = 4e-3 }

[policies.pretrained]
base = "world"

[reward_models.truth]
kind = "truth"
function = "world"

[single]
pairs = 12
steps = 2
optimiser = { name = "adamw", learning_rate = 1e-3 }

[trainings.ipo]
loss = "ipo"
training = { steps = 2, batch_size = 4, looks = 2, optimiser = { name = "adamw", learning_rate = 1e-3 } }

[trainings.once]
training = { steps = 1, batch_size = 4, optimiser = { name = "adamw", learning_rate = 1e-3 } }

[subsets.low]
kind = "lowest"
by = "shared"
count = 10
trainings = ["ipo"]
[subsets.gold]
kind = "other"
trainings = ["once"]
data = { source = "world", pairs = 12, policy_fraction = 0 }

[tracking]
pairs = 8
writing = { prompts = 2, max_new_tokens = 4 }

[refusing]
judge = { kind = "world" }
sampling = { responses = 2, prompts = 2, max_new_tokens = 4 }

[[claims]]
name = "a"
claim = "pairs that share more tokens displace more"
similarity = "shared"
[[claims]]
name = "b"
claim = "the lowest end likelier than every other one"
higher = "low"
lower = "unlike"
"""


def blocks() -> tuple[str, str]:
    """The file that docs/extending.md shows for this question, and what it says of it in a study."""
    text = (REPOSITORY / "docs" / "extending.md").read_text().partition("## A similarity")[2].partition("\n## ")[0]
    (code,), (said,) = (re.findall(rf"```{form}\n(.*?)```", text, re.DOTALL) for form in ("python", "toml"))
    return code, said


MINE, SAID = blocks()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished place with the study in it."""
    place = tmp_path_factory.mktemp("displaced")
    (place / "displaced.toml").write_text(STUDY + SAID)
    (place / "overlapping.py").write_text(MINE)
    told(place, "run", "displaced.toml", "--jobs", "2")
    return place


def told(place: Path, *words: str, code: int = 0) -> str:
    where = os.environ | {"RMPIPE_HOME": str(place / "home"), "PYTHONPATH": str(REPOSITORY)}
    called = [sys.executable, "-m", "flows.cli", *words]
    done = subprocess.run(called, cwd=place, env=where, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout + done.stderr * bool(code)


def made(place: Path, stage: str, **labels: str) -> Any:
    home = place / "home"
    found = [open_artifact(f"{stage}/{one.name}", home) for one in (home / "store" / stage).glob("[0-9a-f]*")]
    (one,) = [each for each in found if labels.items() <= each.record["labels"].items()]
    return one


def weighed(folder: Path, *changes: str) -> str:
    """The address of the answer, as it is planned."""
    folder.mkdir(exist_ok=True)
    (folder / "overlapping.py").write_text(MINE)
    rows = [{"prompt": f"tell me {n}", "chosen": " a", "rejected": " b"} for n in range(30)]
    (folder / "gold.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = STUDY.replace('source = "world", pairs = 12,', 'source = "local", path = "gold.jsonl",')
    (folder / "displaced.toml").write_text(text)
    planned = json.loads(told(folder, "plan", "displaced.toml", "--json", *(f"--set={each}" for each in changes)))
    return next(step["address"] for step in planned["stages"] if step["stage"] == "weigh")


def test_neither_speed_nor_the_place_of_data_moves_the_answer(tmp_path):
    own = ('diagnosing.similarities.shared={kind="overlapping:Shared"}', "subsets.unlike={kind='overlapping:Unlike'}")
    here = weighed(tmp_path / "here", *own)
    assert here == weighed(tmp_path / "there", *own)
    faster = ("trainings.ipo.training.micro_batch=2", "trainings.ipo.training.checkpoint_seconds=5")
    assert here == weighed(tmp_path / "here", *own, *faster)
    assert here != weighed(tmp_path / "here", *own, "trainings.ipo.training.steps=3")


def answer_of(place: Path) -> dict[str, Any]:
    return made(place, "weigh").answer()


def test_the_answer_has_every_subset_and_similarity_those_beside_the_study_too(place):
    answer = answer_of(place)
    trained = {(row["training"], row["subset"]) for row in answer["rows"]}
    assert trained == {("ipo", "unlike"), ("ipo", "low"), ("once", "unlike"), ("once", "gold")}
    correlated = {(item["training"], item["subset"]) for item in answer["correlations"]}
    assert correlated == {("alone", "")}  # a filter of one's own may know the similarity that is judged
    assert {item["similarity"] for item in answer["correlations"]} == set(answer["similarities"])
    assert answer["similarities"][-1] == "shared"
    assert [claim["name"] for claim in answer["contrasts"]] == ["a", "b"]
    assert all(row["refusal"] is None or 0 <= row["refusal"]["value"] <= 1 for row in answer["rows"])


def test_a_similarity_of_ones_own_is_computed_by_its_class(place):
    table = made(place, "diagnose").table()
    words = [[{*text.split(), "<eos>"} for text in table[side]] for side in ("chosen", "rejected")]
    shares = [len(a & b) / len(a | b) for a, b in zip(*words, strict=True)]
    assert table["shared"].to_numpy() == pytest.approx(shares)


def test_a_subset_is_what_its_rule_says_and_is_trained_on_and_no_other(place):
    table = made(place, "diagnose").table()
    low = table.sort_values("shared", kind="stable")["id"][:10]
    for name, ids in (("unlike", table["id"][table["shared"] <= 0.6]), ("low", low)):
        kept = made(place, "select", subset=name)
        assert set(kept.split("reward")["id"]) == set(ids)
        assert made(place, "prefer", subset=name, training="ipo").inputs["preferences"] == kept
        assert len(kept.split("test")) == 12


def test_a_tracked_number_is_the_mean_of_its_pairs(place):
    for row in answer_of(place)["rows"]:
        (address,) = row["addresses"]["track"]
        frame = open_artifact(address, place / "home").table().query("set == 'trained'")
        assert row["chosen"]["value"] == pytest.approx((frame["chosen_after"] - frame["chosen_before"]).mean())
        assert len(frame) == 8
        assert row["pairs"] == len(made(place, "select", subset=row["subset"]).split("reward"))


def test_a_pair_begins_alone_where_it_was_diagnosed(place):
    diagnosed = made(place, "diagnose").table().set_index("id")
    runs = json.loads((made(place, "single").path / "runs.json").read_text())
    begun = pd.Series({run["id"]: run["chosen"][0] for run in runs})
    assert len(begun) == 12
    assert begun.to_numpy() == pytest.approx(diagnosed.loc[begun.index, "chosen_logprob"].to_numpy(), abs=1e-4)


def test_a_second_run_makes_nothing_and_another_subset_only_what_it_needs(place):
    assert "nothing had to run" in told(place, "run", "displaced.toml")
    changes = ("--set", 'subsets.high={kind="highest",by="ches",count=10,trainings=["once"]}')
    more = json.loads(told(place, "plan", "displaced.toml", "--json", *changes))
    stages = [step["stage"] for step in more["stages"] if step["status"] == "run"]
    assert sorted(stages) == ["classify", "prefer", "report", "select", "track", "weigh"]


def test_an_edit_beside_the_study_makes_again_what_rests_on_it_and_nothing_else(place):
    file = place / "overlapping.py"
    file.write_text(MINE.replace("len(a | b)", "max(len(a), len(b))"))
    try:
        steps = json.loads(told(place, "plan", "displaced.toml", "--json"))["stages"]
    finally:
        file.write_text(MINE)
    again = {step["title"] for step in steps if step["status"] == "run"}
    assert "diagnose pretrained · seed 1" in again
    assert {step["stage"] for step in steps if step["status"] == "hit"} >= {"prepare", "pretrain", "relabel"}


def test_what_is_misspelt_beside_the_study_is_refused_before_anything_runs(place):
    said = told(place, "run", "displaced.toml", "--set", "diagnosing.similarities.shared.kind=overlapping:Lost", code=2)
    assert "overlapping has no 'Lost'" in said
    said = told(place, "run", "displaced.toml", "--set", "subsets.low.by=shard", code=2)
    assert "subsets.low.by: no 'shard' there; did you mean shared?" in said
