"""The study that is written: it can be read, names what was given, and leaves open what must be decided."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rmpipe.config import StudyError
from rmpipe.corpus import Pairs, preferences
from rmpipe.draft import Draft
from rmpipe.preference import check
from rmpipe.prospect import Model, language_model
from rmpipe.split import SPLITS
from rmpipe.study import Study


@pytest.fixture
def model(base: Path) -> Model:
    return language_model(str(base), "--policy")


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    rows = [{"prompt": f"tell {n}", "chosen": " it is red", "rejected": f" it is {n}"} for n in range(60)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return preferences(str(tmp_path / "pairs.jsonl"))


def scorer(place: str = "theirs/scorer", **settings: Any) -> Model:
    """A reward model as it is told, of one output unless it is said."""
    named = {"architectures": ["LlamaForSequenceClassification"], "model_type": "llama", "id2label": {"0": "LABEL_0"}}
    return Model(place, settings=named | settings, parameters=1000, dtype="float32")


def read(draft: Draft) -> Any:
    draft.file.write_text(draft.text())
    return Study.read(draft.file)


def test_a_study_names_what_was_given_and_says_what_it_took_for_granted(tmp_path: Path, model: Model, pairs: Pairs):
    draft = Draft(tmp_path / "mine.toml", [model], [scorer()], pairs, None, gpu=False)
    study = read(draft)
    assert (study.name, study.ground_truth, study.seeds) == ("mine", None, (1, 2, 3))
    assert list(study.reward_models) == ["trained", "length", "scorer"]
    assert list(study.policies) == list(study.bases)
    assert 'path = "pairs.jsonl"' in draft.text()  # beside the study: from there
    told = " ".join(line.lstrip("# ") for line in draft.text().splitlines() if line.startswith("#"))
    assert all(text in told for text in draft.assumed())
    assert "ranks go by the proxy gain, which each reward model awards itself" in told
    assert draft.text().startswith("# rmpipe run mine.toml\n")
    assert max(map(len, draft.text().splitlines())) <= 120 + len(model.place)


def test_models_of_one_name_are_told_apart_and_names_fit_a_study(tmp_path: Path, model: Model, pairs: Pairs):
    policies = [replace(model, place=place) for place in ("a/Llama-3.2-1B", "b/Llama-3.2-1B", "c/length")]
    study = read(Draft(tmp_path / "s.toml", policies, [scorer("d/trained")], pairs, None, gpu=False))
    assert list(study.bases) == ["Llama-3_2-1B", "Llama-3_2-1B_2", "length_2"]
    assert [base.path for base in study.bases.values()] == [policy.place for policy in policies]
    assert "trained_2" in study.reward_models


@pytest.mark.parametrize("truth", ["story", "operator:lt"])
def test_a_function_as_ground_truth_labels_the_pairs(tmp_path: Path, model: Model, pairs: Pairs, truth: str):
    study = read(Draft(tmp_path / "s.toml", [model], [], pairs, truth, gpu=False))
    assert study.ground_truth == "truth"
    assert study.reward_models["truth"].kind == "truth"


def test_a_model_as_ground_truth_is_a_reward_model(tmp_path: Path, model: Model, pairs: Pairs):
    study = read(Draft(tmp_path / "s.toml", [model], [], pairs, scorer("theirs/gold"), gpu=False))
    assert (study.reward_models["truth"].kind, study.reward_models["truth"].path) == ("pretrained", "theirs/gold")


def test_labels_are_named_in_the_study_and_what_they_say_is_said(tmp_path: Path, model: Model, pairs: Pairs):
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "a", "rejected": "b"}]
    file = tmp_path / "labels.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    draft = Draft(tmp_path / "mine.toml", [model], [], pairs, None, gpu=False, labels=str(file))
    study = read(draft)
    assert study.foresight.labels.path == str(file)
    assert 'labels = "labels.jsonl"' in draft.text()  # beside the study: from there
    name = next(iter(study.policies))
    assert ("labels", str(file), f"{name}: labels of 4 responses to 2 prompts, by 2 pairs") in list(draft.seen())
    told = [text.removeprefix(f"{file}: ") for text in draft.assumed() if text.startswith(str(file))]
    assert [text.split()[0] for text in told] == ["`rmpipe", "rows", "a"]
    assert f"rows that name no policy are responses of {name}, as it came" in told
    file.write_text("\n".join(json.dumps(row | {"policy": "another"}) for row in rows))
    with pytest.raises(StudyError, match=rf"^--labels: {file}: policy: no row is of '{name}'; known: another"):
        Draft(tmp_path / "mine.toml", [model], [], pairs, None, gpu=False, labels=str(file)).check()


LABELS = {"id2label": {"0": "rude", "1": "kind"}}
CODE = {"auto_map": {"AutoModelForSequenceClassification": "modeling_theirs.Theirs"}}


@pytest.mark.parametrize(
    ("settings", "told", "line"),
    [
        (LABELS, "2 outputs, and `output` must say which is the reward: 0 (rude), 1 (kind)", "# output = 0"),
        (CODE, "read by code of its own (modeling_theirs.py)", "# trust_remote_code = false"),
    ],
)
def test_what_must_be_decided_is_left_out_with_the_question(tmp_path, model, pairs, settings, told, line):
    draft = Draft(tmp_path / "s.toml", [model], [scorer(**settings)], pairs, None, gpu=False)
    assert list(read(draft).reward_models) == ["trained", "length"]
    assert line in draft.text()
    assert any(told in text for text in draft.assumed())
    block = re.search(r"# \[reward_models\.scorer\]\n(# .*\n)+", draft.text())[0]
    decided = draft.text().replace(block, re.sub("^# ", "", block, flags=re.MULTILINE))
    (tmp_path / "decided.toml").write_text(decided)
    assert Study.read(tmp_path / "decided.toml").reward_models["scorer"].kind == "pretrained"
    with pytest.raises(StudyError, match=r"^--ground-truth: theirs/scorer: it "):
        Draft(tmp_path / "s.toml", [model], [], pairs, scorer(**settings), gpu=False).check()


def test_a_large_policy_spares_memory_on_a_gpu_and_has_one_seed_on_a_cpu(tmp_path: Path, model: Model, pairs: Pairs):
    large = replace(model, parameters=2_000_000_000)
    study = read(Draft(tmp_path / "s.toml", [large], [], pairs, None, gpu=True))
    training, rloo = study.reward_models["trained"].training, study.algorithms["rloo"]
    assert (training.precision, training.checkpointing, rloo.precision) == ("mixed", True, "mixed")
    assert next(iter(study.bases.values())).dtype == "bfloat16"
    assert study.seeds == (1, 2, 3)
    slow = Draft(tmp_path / "s.toml", [large], [], pairs, None, gpu=False)
    assert read(slow).seeds == (1,)
    assert any(text.startswith("one seed") for text in slow.assumed())


def few(folder: Path, count: int) -> Pairs:
    """Pairs of some prompts, three of each, of unlike lengths."""
    told = [" it is red", " it is blue and old", " it is old and old and old"]
    rows = [{"prompt": f"tell {n}", "chosen": text, "rejected": " it"} for n in range(count) for text in told]
    (folder / "few.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return preferences(str(folder / "few.jsonl"))


@pytest.mark.parametrize("count", [12, 40])
def test_no_step_takes_more_prompts_than_any_seed_leaves_for_rlhf(tmp_path: Path, model: Model, count: int):
    draft = Draft(tmp_path / "s.toml", [model], [], few(tmp_path, count), None, gpu=False)
    study = read(draft)
    there = [check(study.dataset, seed) for seed in study.seeds]
    left = {split: min(each.loc[each["split"] == split, "prompt"].nunique() for each in there) for split in SPLITS}
    assert study.algorithms["rloo"].prompts_per_step == min(8, left["policy"])
    assert (study.sampling.prompts, study.evaluation.prompts) == (min(40, left["policy"]), min(40, left["test"]))
    study.check_sources()
    told = f"{left['policy']} prompts are left for RLHF, and each of its steps takes them all; give more pairs"
    assert (told in list(draft.assumed())) == (left["policy"] < 8)


def test_pairs_that_leave_one_prompt_held_out_are_too_few(tmp_path: Path, model: Model):
    draft = Draft(tmp_path / "s.toml", [model], [], few(tmp_path, 8), None, gpu=False)
    told = r"few.jsonl: 1 prompt is held out of 8 that are short enough; give pairs of about 16 prompts"
    with pytest.raises(StudyError, match=told):
        draft.text()


def test_what_was_not_seen_is_written_with_guesses_that_say_so(tmp_path: Path):
    unseen = Model("somebody/model", unseen="not looked at: the hub does not answer")
    pairs = Pairs("somebody/pairs", {"source": "hub", "path": "somebody/pairs"}, unseen="not looked at")
    draft = Draft(tmp_path / "s.toml", [unseen], [Model("somebody/scorer", unseen="not looked at")], pairs, None, False)
    study = read(draft)
    assert (study.dataset.tokenizer, study.dataset.max_prompt_tokens) == ("somebody/model", 512)
    assert "somebody/model: not looked at: the hub does not answer" in list(draft.assumed())
    assert 'form = "conversation"' in draft.text()
