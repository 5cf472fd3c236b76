"""The question `generalise`, from a study file to its answer, with a shift and a reward model beside the study."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rmpipe.artifact import Artifact, open_artifact

REPOSITORY = Path(__file__).parents[2]

STUDY = """
name = "shifted"
flow = "generalise"
seeds = [1, 2]
ground_truth = "truth"

[dataset]
source = "world"
pairs = 80
policy_fraction = 0
test_fraction = 0.4
topics = ["kitchen", "garden"]

[bases.world]
kind = "world"
documents = 300
hidden = 32
layers = 1
heads = 2
[bases.world.training]
steps = 15
batch_size = 16
optimiser = { name = "adamw", learning_rate = 4e-3 }

[policies.pretrained]
base = "world"

[reward_models.truth]
kind = "truth"
function = "world"

[reward_models.explicit]
kind = "explicit"
training = { steps = 4, batch_size = 8, looks = 2, optimiser = { name = "adamw", learning_rate = 1e-3 } }

[reward_models.implicit]
kind = "implicit"
training = { steps = 4, batch_size = 8, looks = 2, optimiser = { name = "adamw", learning_rate = 1e-3 } }

[shifts.paraphrase]
kind = "register"

[shifts.topics]
kind = "elsewhere"
data = { source = "world", pairs = 30, topics = ["market"] }

[generating]
right = 0.5
[generating.sampling]
prompts = 4
responses = 2
max_new_tokens = 8

[[claims]]
name = "a"
claim = "the explicit one is more accurate under token-level shift"
shift = "token"
higher = "explicit"
lower = "implicit"
"""


def blocks() -> tuple[dict[str, str], str]:
    """The files that docs/extending.md shows for this question, by name, and what it says of them in a study."""
    text = (REPOSITORY / "docs" / "extending.md").read_text().partition("## A similarity")[0]
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    said = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    return dict(zip(("shouting.py", "terse.py"), code, strict=True)), "\n".join(said)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished place with the study in it, and what its run printed."""
    place = tmp_path_factory.mktemp("shifted")
    files, said = blocks()
    for name, text in files.items():
        (place / name).write_text(text)
    (place / "shifted.toml").write_text(f"{STUDY}\n{said}")
    return place, told(place, "run", "shifted.toml")


def told(place: Path, *words: str) -> str:
    told = [sys.executable, "-m", "flows.cli", *words]
    where = os.environ | {"RMPIPE_HOME": str(place / "home"), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(told, cwd=place, env=where, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_a_study_that_asks_for_it_tells_of_its_pairs_before_training(shifted):
    place, printed = shifted
    line = "diagnosing = {}"
    (place / "asking.toml").write_text(f'extends = "shifted.toml"\n{line}\n')
    again = told(place, "run", "asking.toml")
    assert "3 of" in again.splitlines()[-1]  # a diagnosis a seed, and the report
    page = Path(re.search(r"^report +(\S+)$", again, re.MULTILINE)[1])
    text = (place / page).read_text()
    assert "Which pairs may push the preferred response away" in text
    assert len(set(re.findall(r"rmpipe why (diagnose/\w{12})", text))) == 2
    before = Path(re.search(r"^report +(\S+)$", printed, re.MULTILINE)[1])
    assert "push the preferred response away" not in (place / before).read_text()


def test_the_answer_names_every_set_and_reward_model_the_ones_beside_the_study_too(shifted):
    place, printed = shifted
    answer = json.loads(told(place, "rank", "shifted.toml", "--json"))
    cells = {(row["reward_model"], row["set"], row["shift"]) for row in answer["rows"]}
    shifts = {"test": "in-distribution", "paraphrase": "token", "shouting": "token", "topics": "domain"}
    assert cells == {(name, one, shift) for name in ("explicit", "implicit", "terse") for one, shift in shifts.items()}
    assert "Claimed beforehand:" in printed
    assert re.search(r"writes what is right itself for \d\.\d\d", " ".join(printed.split()))


def test_every_accuracy_is_that_of_the_scores_it_came_from(shifted):
    place, _ = shifted
    home = place / "home"
    for row in json.loads(told(place, "rank", "shifted.toml", "--json"))["rows"]:
        per_base = []
        for address in row["addresses"]["evaluate"]:
            rewards = open_artifact(address, home).inputs["scored"][row["set"]].pairs()
            per_base.append(((rewards[:, 0] > rewards[:, 1]) + 0.5 * (rewards[:, 0] == rewards[:, 1])).mean())
        assert row["accuracy"]["value"] == pytest.approx(sum(per_base) / len(per_base))
        assert len(per_base) == 2
        assert row["bases"] == (0 if row["reward_model"] == "terse" else 2)


def test_a_shift_s_pairs_stand_beside_their_originals_and_keep_their_labels(shifted):
    home = shifted[0] / "home"
    found = [open_artifact(f"shift/{folder.name}", home) for folder in (home / "store" / "shift").iterdir()]
    loud = next(each for each in found if each.table()["chosen"].str.isupper().all())
    table = loud.table()
    assert (table["original_chosen"].str.upper() == table["chosen"]).all()
    originals = loud.inputs["preferences"].split("test").set_index("id")
    assert (originals.loc[table["id"], "chosen"].to_numpy() == table["original_chosen"].to_numpy()).all()


def test_a_look_at_half_time_is_scored_on_every_set(shifted):
    home = shifted[0] / "home"
    judged = next((home / "store" / "judge").iterdir())
    curves = json.loads((judged / "answer.json").read_text())["curves"]
    looked = [curve for curve in curves if curve["reward_model"] != "terse"]
    assert all(curve["steps"] == [2, 4] and all(len(line) == 2 for line in curve["sets"].values()) for curve in looked)
    assert len(looked) == 4


def test_a_second_run_makes_nothing_and_a_new_set_makes_only_what_it_needs(shifted):
    place, _ = shifted
    assert "nothing had to run" in told(place, "run", "shifted.toml")
    more = json.loads(told(place, "plan", "shifted.toml", "--json", "--set", "shifts.own.kind=same"))
    made = {step["stage"] for step in more["stages"] if step["status"] == "run"}
    assert made == {"evaluate", "separate", "judge", "report"}  # those held out, by another name: scored already


def test_a_reward_model_of_the_study_is_scored_from_its_folder_alone(shifted):
    from tasks.derive import scorer_of

    home = shifted[0] / "home"
    evaluated = [Artifact(f"evaluate/{one.name}", home) for one in (home / "store" / "evaluate").iterdir()]
    model = next(one.inputs["reward_model"] for one in evaluated if one.record["labels"]["reward_model"] != "terse")
    assert len(scorer_of(model)(["tell me"], [" it is red"])) == 1


def test_every_reward_model_is_examined_before_the_answer_is_given(tmp_path: Path):
    from flows.generalise import generalise
    from rmpipe.store import Store
    from rmpipe.study import Study
    from tasks.stage import planning

    (tmp_path / "s.toml").write_text(STUDY)
    found = {}
    for changes in ([], ["allow_unsound=true"]):
        with planning(Store(tmp_path)) as plan:
            generalise(Study.read(tmp_path / "s.toml", changes))
        calls = [step.call for step in plan.steps.values()]
        (judge,) = [call for call in calls if call.stage.name == "judge"]
        audits = {(call.labels["reward_model"], call.labels["seed"]) for call in calls if call.stage.name == "audit"}
        assert audits == {(name, seed) for name in ("truth", "explicit", "implicit") for seed in (1, 2)}
        found[judge.address] = len(judge.guards)
    assert list(found.values()) == [6, 0]
