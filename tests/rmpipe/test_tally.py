"""What the stages of the tiny study do, counted before any of them runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.inquiry import inquire
from rmpipe.artifact import RewardModel, Rollouts
from rmpipe.estimate import Work
from rmpipe.labelling import Labelling
from rmpipe.racing import Racing
from rmpipe.recipe import HELD
from rmpipe.study import Scoring
from rmpipe.tally import tally
from rmpipe.workload import Workload

ADAMW = "algorithms.rloo.optimiser.name=adamw"


@pytest.fixture
def calls(places: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The stages of the tiny study, and what each is told."""
    place = places()
    monkeypatch.setenv("RMPIPE_HOME", str(place.home))
    steps = inquire(str(place.file), ()).plan.steps
    return {address: (step.call.stage.name, step.call.told) for address, step in steps.items()}


@pytest.fixture
def counted(places: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[..., list[Work]]]:
    """Reads the tiny study with changes: gives the works of a stage, whose titles have some words."""
    place = places()
    monkeypatch.setenv("RMPIPE_HOME", str(place.home))

    def read(*changes: str) -> Callable[..., list[Work]]:
        plan = inquire(str(place.file), changes).plan
        load = Workload({address: (step.call.stage.name, step.call.told) for address, step in plan.steps.items()})
        titles = {address: step.call.title for address, step in plan.steps.items()}

        def works(stage: str, *words: str) -> list[Work]:
            named = [key for key, title in titles.items() if key.startswith(f"{stage}/")
                     and all(word in title.split() for word in words)]  # fmt: skip
            return [tally(load, key) for key in named]

        return works

    return read


def test_trainings_are_counted_by_steps_and_batches(counted: Any):
    works = counted()
    (pretrained,) = works("pretrain")
    assert pretrained.texts == 20 * 16
    assert pretrained.passes("trained") == 20
    assert [work.texts for work in works("finetune")] == [5 * 8] * 2
    (trained,) = works("train", "off")
    assert trained.texts == 4 * 8 * 2
    assert trained.tokens() == trained.tokens("trained") > 0


def test_micro_batches_make_as_many_passes_more(counted: Any):
    few, many = (counted(f"reward_models.off.training.micro_batch={size}")("train", "off")[0] for size in (8, 2))
    assert (few.passes(), many.passes()) == (4, 16)
    assert few.tokens() == many.tokens()
    assert few.memory > many.memory


def test_looks_are_written_beside_the_end(counted: Any):
    one, four = (counted(f"reward_models.off.training.looks={looks}") for looks in (1, 4))
    assert four("train", "off")[0].written == 4 * one("train", "off")[0].written
    rewards = [works("score", "off")[0].tokens("read") for works in (one, four)]
    assert rewards[1] == pytest.approx(4 * rewards[0])


def test_samples_and_their_scores_are_counted_by_prompts_and_responses(counted: Any):
    works = counted()
    assert [work.texts for work in works("sample")] == [8 * 4] * 2
    assert {work.texts for work in works("score", "weak", "off")} == {8 * 4}
    (functional,) = works("score", "weak", "truth")
    assert functional.uses == ()


def test_what_is_drawn_is_no_longer_than_it_may_be(counted: Any):
    (short, _), (longer, _) = (counted(f"sampling.max_new_tokens={most}")("sample") for most in (3, 30))
    assert short.tokens("drawn") == 8 * 4 * 3
    assert short.tokens("drawn") < longer.tokens("drawn") <= 8 * 4 * 30


def test_rlhf_draws_reads_and_trains_and_a_reward_model_with_weights_reads_more(counted: Any):
    works = counted()
    (by_function,), (by_model,) = works("align", "weak", "truth", "rloo"), works("align", "weak", "off", "rloo")
    assert by_function.texts == 3 * 4 * 2
    for how in ("drawn", "read", "trained"):
        assert by_function.tokens(how) > 0
    assert by_model.tokens("read") > by_function.tokens("read")
    assert by_model.memory > by_function.memory
    assert by_model.tokens("trained") == by_function.tokens("trained")


def test_scores_of_labelled_responses_are_counted_by_the_file_that_has_them(tmp_path: Path):
    rows = [{"prompt": prompt, "responses": ["a", "b c"], "labels": [0, 1]} for prompt in "pqr"]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = {"config": Labelling(path=str(tmp_path / "labels.jsonl")), "whose": "mine", "content": ""}
    rollouts, function = Rollouts("grade/0", tmp_path), RewardModel("derive/0", tmp_path)
    scored = {"config": Scoring(), "reward_model": function, "texts": rollouts}
    calls = {"grade/0": ("grade", told), "derive/0": ("derive", {"components": []}), "score/0": ("score", scored)}
    assert tally(Workload(calls), "score/0").texts == 6
    assert not tally(Workload(calls), "grade/0").unknown


def test_slopes_are_taken_one_sample_at_a_time_and_held_as_many_as_there_are(counted: Any):
    few, all_of_them = (counted(f"foresight.differentiating.weights={weights}", ADAMW) for weights in (10, 10**9))
    taken, whole = (works("differentiate", "weak")[0] for works in (few, all_of_them))
    assert taken.passes("trained") == taken.texts == 8 * 4
    assert taken.written == 2 * 8 * 4 * 10
    assert whole.memory - taken.memory == 3 * (whole.written - taken.written)
    (rehearsed,) = few("rehearse", "weak")
    assert (rehearsed.uses, rehearsed.memory) == ((), 2 * 4 * 8 * 4 * 10 + HELD)
    assert all_of_them("rehearse", "weak")[0].memory >= 4 * whole.written + HELD  # no more weights than the policy has


@pytest.mark.parametrize(("budget", "texts"), [(3, 0), (8, 2 * 4), (None, 8 * 4)])
def test_a_race_is_counted_to_its_last_round_and_to_nothing_where_no_prompt_is_paid_for(
    calls: dict[str, Any], budget: int | None, texts: int
):
    (sampled, *_), (scored, *_) = ([told for name, told in calls.values() if name == each]
                                   for each in ("sample", "score"))  # fmt: skip
    sampling = sampled["config"].model_copy(update={"responses": 9})  # of which a race draws four
    told = {"config": Racing(budget=budget), "sampling": sampling, "truth": scored["reward_model"]}
    told |= {"policy": sampled["policy"], "preferences": sampled["preferences"], "teachers": {"a": told["truth"]}}
    work = tally(Workload(calls | {"race/0": ("race", told)}), "race/0")
    assert (work.texts, work.unknown) == (texts, "")
    assert (work.tokens() > 0) == (texts > 0)


def test_every_seed_costs_the_same(counted: Any):
    works = counted("seeds=[1,2]")("align", "weak", "off", "rloo")
    assert len(works) == 2
    assert works[0].tokens() == works[1].tokens()


def test_stages_without_models_have_no_passes(counted: Any):
    works = counted()
    assert {work.passes() for name in ("prepare", "derive", "measure", "rank", "report") for work in works(name)} == {0}


def test_a_stage_that_nobody_counts_is_unknown():
    load = Workload({"mine/0": ("mine", {})})
    assert tally(load, "mine/0").unknown


def test_what_must_be_fetched_first_is_unknown(counted: Any):
    data = 'dataset={source="hub",path="nobody/no-such-pairs"}'
    (trained,) = counted(data)("train", "off")
    assert trained.unknown == "its rows must be fetched first"


def test_a_model_that_is_not_here_is_unknown_by_name(counted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    works = counted('reward_models.public={kind="pretrained",path="nobody/no-such-model"}')
    assert "nobody/no-such-model is not on this machine" in works("score", "weak", "public")[0].unknown
    assert not works("score", "weak", "off")[0].unknown
