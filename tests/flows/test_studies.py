"""The studies that are shipped: read whole, sharing what they can, and run on models that no one here wrote."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from flows.displace import displace
from flows.inquiry import STUDIES
from flows.teach import teach
from rmpipe.config import StudyError
from rmpipe.store import Store
from rmpipe.study import Study
from tasks.stage import planning

pytestmark = pytest.mark.slow

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


def test_mend_trains_nothing_again_and_levels_by_samples_of_all_prompts(tmp_path):
    study = Study.read(STUDIES / "mend.toml")
    pocket, mend = addresses(Study.read(STUDIES / "pocket.toml"), tmp_path), addresses(study, tmp_path)
    trained = {address for address in mend if address.startswith(("pretrain", "finetune", "train", "collect"))}
    assert trained <= pocket
    assert len(trained) == 3 * (1 + 1 + 2 + 1)  # the base, weak, off and weak50, and pairs of weak
    study.check_sources()


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
    foreseen = {"differentiate", "rehearse", "forecast"}  # for want of a ground truth nothing is foretold of `local`
    assert stages["stories"] - stages["local"] == {"relabel", "collect"} | foreseen
    told = r"reward_models\.half\.on_policy: .* the study has none; name a ground_truth, or set on_policy = 0"
    with pytest.raises(StudyError, match=told):
        Study.read(STUDIES / "stories.toml", [*changes, "ground_truth="])


# -- 2410.08847, planned on stand-ins: any model, any file of the form that is asked for ------------------------------

PERSONA = ("question", "answer_matching_behavior")
WITHOUT = [f"{section}={value}" for name in ("gemma", "llama") for section, value in (
    (f"policies.{name}", "false"), (f"bases.{name}", "false"))]  # fmt: skip


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A folder with a model, pairs, and statements of a persona."""
    (tmp_path / "model").mkdir()
    pairs = [{"prompt": f"p{n}", "chosen": f"a{n}", "rejected": "b"} for n in range(40)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    said = [dict(zip(PERSONA, (f"q{n}", ("Yes", "No")[n % 2]), strict=True)) for n in range(1000)]
    (tmp_path / "persona.jsonl").write_text("\n".join(map(json.dumps, said)))
    return tmp_path


def planned(name: str, home: Path, changes: list[str]) -> Counter[str]:
    """How many stages of each kind a study comes to."""
    with planning(Store(home)) as plan:
        displace(Study.read(STUDIES / f"{name}.toml", changes))
    return Counter(step.call.stage.name for step in plan.steps.values())


@pytest.mark.parametrize(
    ("name", "policies"), [("tokens", ("olmo", "olmo_taught")), ("tokens_never", ("olmo", "olmo_taught")),
                           ("tokens_ipo", ("olmo_taught",))],
)  # fmt: skip
def test_single_tokens_are_preferred_by_a_base_and_by_what_was_taught(stand_ins, name, policies):
    file, kept = stand_ins / "persona.jsonl", {*policies, "olmo"}
    study = Study.read(STUDIES / f"{name}.toml")
    changes = [f"policies.{one}=false" for one in study.policies if one not in policies]
    changes += [f"bases.{one}=false" for one in study.bases if one not in kept]
    changes += [f"dataset.path={file}", f"bases.olmo.path={stand_ins / 'model'}"]
    changes += [f"policies.olmo_taught.demonstrations.data.path={file}"]
    counts = planned(name, stand_ins, changes)
    assert (counts["finetune"], counts["prepare"]) == (1, 2)  # what is shown is another data set
    assert counts["single"] == counts["diagnose"] == len(policies)
    single = Study.read(STUDIES / f"{name}.toml", changes).single
    assert (single.steps, single.first_token, single.optimiser.name) == (100, True, "rmsprop")
    assert (single.loss, single.beta) == (("ipo", 0.01) if name == "tokens_ipo" else ("dpo", 0.1))


def test_the_tokens_are_those_of_the_paper(stand_ins):
    told = {}
    for name in ("tokens", "tokens_never"):
        study = Study.read(STUDIES / f"{name}.toml", [f"dataset.path={stand_ins / 'persona.jsonl'}"])
        rows, _ = study.dataset.rows(1)
        told[name] = {(row["chosen"], row["rejected"], int(row["prompt"][1:]) % 2) for row in rows}
        taught = study.policies["olmo_taught"]
        assert taught.finetuning.steps * taught.finetuning.batch_size >= 1000  # one epoch
    assert told == {"tokens": {("Yes", "No", 1)}, "tokens_never": {("No", "Never", 0)}}


@pytest.mark.parametrize("name", ["quantiles", "alpacafarm"])
def test_every_quantile_of_each_similarity_is_trained_on_and_so_are_the_controls(stand_ins, name):
    table = f'dataset={{source = "local", path = "{stand_ins / "pairs.jsonl"}", policy_fraction = 0}}'
    changes = [table, f"bases.olmo.path={stand_ins / 'model'}", *WITHOUT, "seeds=[1]"]
    counts = planned(name, stand_ins, changes)
    assert counts["select"] == counts["prefer"] == counts["track"] == 5 * 5 + 1
    subsets = Study.read(STUDIES / f"{name}.toml", changes).subsets.values()
    rungs = Counter(
        (subset.by, subset.equal_length, subset.trainings) for subset in subsets if subset.kind == "quantile"
    )
    plain, equal = ("dpo",), ("dpo_equal",)
    assert rungs == {("ches", None, plain): 5, ("edit", None, plain): 5, ("hidden", None, plain): 5,
                     ("length", None, plain): 5, ("ches", 0.1, equal): 5}  # fmt: skip


def test_a_policy_is_trained_on_its_own_pairs_and_on_gold_ones_and_asked_to_refuse(stand_ins):
    file = stand_ins / "pairs.jsonl"
    changes = [f"dataset.path={file}", f"subsets.gold.data.path={file}", *WITHOUT[2:], "seeds=[1]"]
    changes += [f"bases.gemma.path={stand_ins / 'model'}"]
    changes += [f"{judge}.path={stand_ins / 'model'}" for judge in ("reward_models.refusal.judge", "refusing.judge")]
    counts = planned("sorrybench", stand_ins, changes)
    assert counts["collect"] == 1
    assert counts["prefer"] == counts["track"] == 5  # all twice, filtered, as few at random, gold
    assert counts["classify"] == 1 + 5
    assert planned("refusals", stand_ins, ["seeds=[1]"])["classify"] == 1 + 5


@pytest.mark.parametrize("name", ["refusals", "sorrybench"])
def test_every_training_of_a_policy_that_refuses_is_one_epoch(stand_ins, name):
    file = stand_ins / "pairs.jsonl"
    changes = [] if name == "refusals" else [f"dataset.path={file}", f"subsets.gold.data.path={file}"]
    study = Study.read(STUDIES / f"{name}.toml", changes)
    pairs = {"refusals": {"all": 163, "gold": 326}, "sorrybench": {"all": 373, "gold": 370}}[name]
    for treatment in study.treatments():
        training, subset = study.trainings[treatment.training].training, study.subsets[treatment.subset]
        epochs = training.steps * training.batch_size / (getattr(subset, "count", None) or pairs[treatment.subset])
        assert epochs == pytest.approx(1, abs=0.05)
    rates = {name: training.training.optimiser.learning_rate for name, training in study.trainings.items()}
    assert rates["dpo_gold"] == pytest.approx(rates["dpo"] / 5)


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


def test_pairs_of_ones_own_are_diagnosed_and_tried_on_a_real_model(places):
    if not (MODEL.is_dir() and PAIRS.is_file()):
        pytest.skip("needs the real models and preferences of the folder shared/data beside the project")
    place = places()
    changes = [
        f"bases.mine.path={MODEL}", f"dataset.path={PAIRS}", "seeds=[1]", "dataset.limit=40", "single.pairs=12",
        "single.steps=2", "trainings.dpo.training.steps=2", "trainings.dpo.training.looks=1", "tracking.pairs=8",
        "trainings.dpo.training.batch_size=4", "tracking.writing.prompts=2", "tracking.writing.max_new_tokens=8",
    ]  # fmt: skip
    run = place.rmpipe("run", "pairs", "--json", *(f"--set={change}" for change in changes))
    answer = json.loads(run.output.read_text())
    assert {row["subset"] for row in answer["rows"]} == {"random", "lowest_ches"}
    assert {item["pairs"] for item in answer["correlations"] if item["training"] == "alone"} == {12}
    assert [item["name"] for item in answer["contrasts"]] == ["given length", "filter"]
