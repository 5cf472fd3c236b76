"""The flow `teach`: what a study may ask beside, and what of it moves no address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
    moved = {"sift", "align", "rank", "report"}
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
    (tmp_path / "s.toml").write_text(TINY)
    with pytest.raises(StudyError) as caught:
        Study.read(tmp_path / "s.toml", change.split(";"))
    assert str(caught.value).removeprefix(f"{tmp_path / 's.toml'}: ") == told


def test_prompts_held_out_may_be_sampled_where_nothing_is_sifted(tmp_path: Path):
    assert not of(calls(tmp_path, "sampling.split='test'"), "sift")
