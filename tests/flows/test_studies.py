"""The studies that are shipped: read whole, sharing what they can, and run on models that no one here wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.inquiry import STUDIES
from flows.teach import teach
from rmpipe.config import StudyError
from rmpipe.store import Store
from rmpipe.study import Study
from tasks.stage import planning

SHARED = Path(__file__).parents[3] / "shared" / "data"
MODEL, PAIRS = SHARED / "models" / "stories260k", SHARED / "tinystories" / "pairs_vs_stories260k.jsonl"
CHAT = SHARED / "hh_harmless" / "pairs_chat.jsonl"


def addresses(study: Study, home: Path) -> set[str]:
    with planning(Store(home)) as plan:
        teach(study)
    return set(plan.steps)


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.toml")), ids=lambda file: file.stem)
def test_a_shipped_study_begins_with_the_command_that_runs_it(file):
    lines = [line.lstrip("# ") for line in file.read_text().splitlines()[:4]]
    assert any(line.startswith(f"rmpipe run {file.stem}") for line in lines)


def test_pocket_is_what_its_question_needs():
    study = Study.read(STUDIES / "pocket.toml")
    trained = [name for name, kind in study.reward_models.items() if not kind.constructed]
    assert len(study.seeds) >= 3
    assert len(study.policies) >= 2
    assert len(study.reward_models) >= 8
    assert len(trained) >= 4
    assert all(seed < 100 for seed in study.seeds)  # from 100 on they are for exploration


def test_contrast_makes_nothing_again_that_pocket_made(tmp_path):
    pocket = addresses(Study.read(STUDIES / "pocket.toml"), tmp_path)
    contrast = addresses(Study.read(STUDIES / "contrast.toml"), tmp_path)
    shared = {stage: {a for a in pocket & contrast if a.startswith(stage)} for stage in ("pretrain", "train", "align")}
    assert len(shared["pretrain"]) == 3
    assert len(shared["train"]) == 3  # weak50 of each seed
    assert len(shared["align"]) == 3 * 2 * 4  # seeds x policies x (truth, offset, noisy, weak50)


def test_local_keeps_the_labels_of_the_data_and_stories_labels_them_afresh(tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    (tmp_path / "model").mkdir()
    changes = [f"dataset.path={tmp_path / 'pairs.jsonl'}", f"bases.mine.path={tmp_path / 'model'}"]
    stages = {}
    for name in ("local", "stories"):
        with planning(Store(tmp_path)) as plan:
            teach(Study.read(STUDIES / f"{name}.toml", changes))
        stages[name] = {step.call.stage.name for step in plan.steps.values()}
        assert {"prepare", "train", "sample", "measure", "align", "rank"} <= stages[name]
    assert stages["stories"] - stages["local"] == {"relabel", "collect"}
    told = r"reward_models\.half\.on_policy: .* the study has none; name a ground_truth, or set on_policy = 0"
    with pytest.raises(StudyError, match=told):
        Study.read(STUDIES / "stories.toml", [*changes, "ground_truth="])


SMALL = (
    "seeds=[1]", 'grid=[{policies=["base"], reward_models=["truth", "half"]}]', "dataset.limit=40",
    "sampling.prompts=8", "sampling.responses=4", "sampling.max_new_tokens=16", "collecting.max_new_tokens=16",
    "evaluation.prompts=8", "evaluation.responses=2", "reward_models.half.training.steps=3", "algorithms.rloo.steps=3",
    "algorithms.rloo.prompts_per_step=4", "algorithms.rloo.samples_per_prompt=2", "algorithms.rloo.max_new_tokens=16",
    "algorithms.rloo.evaluations=2", "measuring.draws=100",
)  # fmt: skip


ONLY_STORIES = ("grid", "reward_models.half", "collecting")
LOCAL = 'grid=[{policies=["base"], reward_models=["length", "off"]}]', "reward_models.off.training.steps=3"


@pytest.mark.parametrize(
    ("study", "pairs", "more"),
    [
        ("stories", PAIRS, ()),
        ("local", PAIRS, LOCAL),
        (
            "stories",
            CHAT,
            (f"dataset.tokenizer={MODEL}", "dataset.max_prompt_tokens=200", "dataset.max_response_tokens=200"),
        ),
    ],
    ids=["stories", "without a ground truth", "dialogues as messages"],
)
def test_real_preferences_rank_teachers_of_a_real_model(places, study, pairs, more):
    if not (MODEL.is_dir() and pairs.is_file()):
        pytest.skip("needs the real models and preferences of the folder shared/data beside the project")
    place = places()
    small = [change for change in SMALL if study == "stories" or not change.startswith(ONLY_STORIES)]
    changes = [f"bases.mine.path={MODEL}", f"dataset.path={pairs}", *small, *more]
    run = place.rmpipe("run", study, "--json", *(f"--set={change}" for change in changes))
    answer = json.loads(run.output.read_text())
    assert len(answer["rows"]) == 2
    for row in answer["rows"]:
        assert (row["truth_gain"] is not None) == (study == "stories")
        assert row["proxy_gain"] is not None
        assert row["accuracy_off"]["low"] <= row["accuracy_off"]["value"] <= row["accuracy_off"]["high"]
    (summary,) = (json.loads(file.read_text()) for file in place.home.glob("store/prepare/*/summary.json"))
    assert summary["characters"]["prompt"]["min"] >= 1
    assert ("tokens" in summary) == (pairs == CHAT)
