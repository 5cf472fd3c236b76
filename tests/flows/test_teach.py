"""The flow `teach`: what a study may ask beside, and what of it moves no address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.inquiry import STUDIES
from flows.teach import teach
from rmpipe.config import StudyError
from rmpipe.sieve import Sifting
from rmpipe.store import Store
from rmpipe.study import Study
from tasks.stage import planning
from tests.conftest import TINY


def calls(folder: Path, *changes: str) -> dict[str, Any]:
    """What the tiny study would call, by address."""
    (folder / "s.toml").write_text(TINY)
    with planning(Store(folder / "home")) as plan:
        teach(Study.read(folder / "s.toml", changes))
    return {address: step.call for address, step in plan.steps.items()}


def refusal(folder: Path, change: str) -> str:
    """What is said of the study with changes that cannot be."""
    (folder / "s.toml").write_text(TINY)
    with pytest.raises(StudyError) as caught:
        Study.read(folder / "s.toml", change.split(";"))
    return str(caught.value).removeprefix(f"{folder / 's.toml'}: ")


def of(calls: dict[str, Any], stage: str) -> dict[str, Any]:
    return {address: call for address, call in calls.items() if call.stage.name == stage}


def test_each_cell_is_sifted_by_its_own_reward_models_scores_over_its_own_policys_rollouts(tmp_path: Path):
    found = calls(tmp_path, "sifting={}", "seeds=[1,2]")
    sieves, aligned = of(found, "sift"), of(found, "align")
    assert len(sieves) == len(aligned) == 2 * 2 * 3
    for call in aligned.values():
        sieve = found[call.told["sieve"].address]
        assert sieve.labels == {name: call.labels[name] for name in ("policy", "reward_model", "seed")}
        assert sieve.told["scores"] == call.told["scores"]
        assert found[sieve.told["rollouts"].address].told["policy"] == call.told["policy"]
        assert sieve.told["config"] == Sifting()


def test_two_algorithms_share_a_sieve_and_every_other_stage_stays_where_it_was(tmp_path: Path):
    grpo = "algorithms.grpo={kind='grpo',steps=3,optimiser={learning_rate=1e-3}}"
    plain, sifted = calls(tmp_path, grpo), calls(tmp_path, grpo, "sifting={fate='defer'}")
    assert len(of(sifted, "align")) == 2 * len(of(sifted, "sift"))
    moved = {"sift", "align", "forecast", "rank", "report"}  # a forecast refuses what is sifted
    assert {address for address, call in plain.items() if call.stage.name not in moved} == {
        address for address, call in sifted.items() if call.stage.name not in moved
    }
    assert not set(of(plain, "align")) & set(of(sifted, "align"))


def test_a_study_that_does_not_sift_has_neither_sieves_nor_other_addresses(tmp_path: Path):
    found = calls(tmp_path)
    assert not of(found, "sift")
    for call in of(found, "align").values():
        assert call.told["sieve"] is None
        assert "sieve" not in call.identity["inputs"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("sifting.treshold=0.1", "sifting.treshold: unknown key; did you mean threshold?"),
        ("sifting.fate='keep'", "sifting.fate: Input should be 'drop' or 'defer', got 'keep'"),
        ("sifting.low=1", "sifting.low: Input should be less than 1, got 1"),
        (
            "sifting={};sampling.split='test'",
            'sampling.split: prompts are sifted by samples of them, and "test" draws none to train on; leave it out, or'
            " sifting",
        ),
        (
            "algorithms.rloo={kind='rloo',steps=1,optimiser={learning_rate=1e-3},kl_coefficient=0,kl_target=0.1}",
            "algorithms.rloo: kl_target = 0.1 with kl_coefficient = 0, which nothing raises from 0; set a"
            " kl_coefficient to begin with, or leave kl_target out",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, change: str, told: str):
    assert refusal(tmp_path, change) == told


def test_prompts_held_out_may_be_sampled_where_nothing_is_sifted(tmp_path: Path):
    assert not of(calls(tmp_path, "sampling.split='test'"), "sift")


# -- mending ----------------------------------------------------------------------------------------------------------

LEVELLED = "reward_models.mended={kind='levelled',of='offset',policy='weak'}"
UNSAMPLED = 'sampling.split: prompts are mended by samples of them, and "test" draws none to train on; leave it out, or'
SIEVED = "reward_models.left={kind='sieved',of='offset',sifting={fate='defer'}}"


def test_what_is_levelled_knows_the_scores_of_what_it_levels_over_its_policys_samples_and_moves_nothing_else(tmp_path):
    plain, mended = calls(tmp_path), calls(tmp_path, LEVELLED)
    (call,) = (call for call in of(mended, "derive").values() if call.labels["reward_model"] == "mended")
    scores = mended[call.told["scores"].address]
    assert scores.labels == {"policy": "weak", "reward_model": "offset", "seed": 1}
    assert [part.address for part in call.told["components"]] == [scores.told["reward_model"].address]
    moved = {address.split("/")[0] for address in {*plain} - {*mended}}
    assert moved == {"rehearse", "forecast", "rank", "report"}  # which are of all reward models together
    others = [call for call in of(mended, "derive").values() if call.labels["reward_model"] != "mended"]
    assert not any("scores" in call.identity["inputs"] for call in others)


def test_what_is_sieved_alone_is_taught_with_a_sieve_of_its_own(tmp_path: Path):
    found = calls(tmp_path, SIEVED, "reward_models.deeper={kind='sieved',of='left'}")
    sieved = {call.labels["reward_model"]: call.told["sieve"] for call in of(found, "align").values()}
    assert {name for name, sieve in sieved.items() if sieve} == {"left", "deeper"}
    fates = {call.labels["reward_model"]: call.told["config"].fate for call in of(found, "sift").values()}
    assert fates == {"left": "defer", "deeper": "drop"}
    both = calls(tmp_path, SIEVED, "sifting={low=0.2}")
    lows = {call.labels["reward_model"]: call.told["config"].low for call in of(both, "sift").values()}
    assert lows == {"truth": 0.2, "offset": 0.2, "off": 0.2, "left": None}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (LEVELLED.replace("weak", "weakk"), "reward_models.mended.policy: no 'weakk' there; did you mean weak?"),
        (f"{LEVELLED};sampling.split='test'", f"{UNSAMPLED} reward_models.mended"),
        (f"{SIEVED};sampling.split='test'", f"{UNSAMPLED} reward_models.left"),
    ],
)
def test_what_mends_by_samples_needs_samples_of_the_prompts_to_train_on(tmp_path: Path, change: str, told: str):
    assert refusal(tmp_path, change) == told


def test_what_is_levelled_must_know_every_prompt_that_is_trained_on(tmp_path: Path):
    (tmp_path / "s.toml").write_text(TINY)
    Study.read(tmp_path / "s.toml", [LEVELLED, "sampling.prompts=24"]).check_sources()
    with pytest.raises(StudyError, match=r"sampling\.prompts: 8 of 24 prompts are sampled, and reward_models\.mended"):
        Study.read(tmp_path / "s.toml", [LEVELLED]).check_sources()


def test_a_question_without_samples_has_nothing_to_level_by():
    told = 'levelled must know rewards of a policy\'s samples, and flow = "generalise" has none; leave it out, or ask'
    with pytest.raises(StudyError, match=told):
        Study.read(STUDIES / "shift.toml", ["reward_models.m={kind='levelled',of='explicit',policy='pretrained'}"])


# -- audits -----------------------------------------------------------------------------------------------------------


def test_nobody_is_taught_before_every_audit(tmp_path: Path):
    found = calls(tmp_path, "seeds=[1,2]")
    audits = of(found, "audit")
    assert len(audits) == 2 * 3
    for call in [*of(found, "align").values(), *of(found, "rank").values()]:
        assert {guard.address for guard in call.guards} == set(audits)
    guarded = {call.stage.name for call in found.values() if call.guards}
    assert guarded == {"differentiate", "rehearse", "forecast", "align", "rank"}


def test_the_ground_truth_is_examined_on_the_labels_that_the_data_came_with(tmp_path: Path):
    found = calls(tmp_path)
    pairs = {call.labels["reward_model"]: call.told["preferences"].address.split("/")[0]
             for call in of(found, "audit").values()}  # fmt: skip
    assert pairs == {"truth": "prepare", "offset": "relabel", "off": "relabel"}


def test_what_is_unsound_teaches_and_is_ranked_only_where_the_study_allows_it(tmp_path: Path):
    plain, allowed = calls(tmp_path), calls(tmp_path, "allow_unsound=true")
    assert not any(call.guards for call in allowed.values())
    assert {*plain} - {*allowed} == {*of(plain, "rank"), *of(plain, "report")}  # another answer, nothing else
    (rank,) = of(allowed, "rank").values()
    assert rank.told["about"]["allow_unsound"] is True


def test_a_looser_audit_moves_audits_and_the_answer_alone(tmp_path: Path):
    plain, loose = calls(tmp_path), calls(tmp_path, "auditing.drift=0.5")
    moved = {address.split("/")[0] for address in {*plain} - {*loose}}
    assert moved == {"audit", "rank", "report"}


TOGETHER = ("rehearse", "forecast", "rank", "report")
"""Stages that are told of all reward models at once; a rehearsal is a second of computing."""


def test_a_reward_model_that_joins_a_study_that_was_run_costs_its_own_scoring_and_teaching_alone(tmp_path: Path):
    store = Store(tmp_path / "home")
    before = calls(tmp_path)
    for address, call in before.items():
        with store.making(address) as part:
            kind = {"kind": call.stage.output.__name__}
            store.publish(part, address, {**call.identity, **kind, "code": call.code, **store.seal(part)})
    with planning(store) as plan:
        teach(Study.read(tmp_path / "s.toml", ["reward_models.words={kind='truth',function='length'}"]))
    stages = [step.call.stage.name for step in plan.to_run]
    assert {address for address, step in plan.steps.items() if step.status == "hit"} == {
        address for address, call in before.items() if call.stage.name not in TOGETHER
    }
    assert not {"sample", "train", "pretrain", "finetune", "prepare", "relabel"} & set(stages)
    counts = {name: stages.count(name) for name in ("derive", "score", "measure", "align", *TOGETHER)}
    alone = {"derive": 1, "score": 3, "measure": 2, "align": 2}
    assert counts == alone | {"rehearse": 2, "forecast": 1, "rank": 1, "report": 1}
    own = [step.call.labels for step in plan.to_run if step.call.stage.name not in TOGETHER]
    assert {labels["reward_model"] for labels in own} == {"words"}
