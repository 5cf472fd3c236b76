"""The rehearsal stage: who teaches, on which samples, and where what came of it is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rmpipe.artifact import Rehearsal
from rmpipe.recipe import Recipe
from rmpipe.rehearsal import Rehearsed
from rmpipe.slopes import Slopes
from tasks.rehearse import OWN, rehearse

PROMPTS, SAMPLES = 12, 6
RANDOM = np.random.default_rng(0)
SLOPES = RANDOM.normal(size=(PROMPTS, SAMPLES, 20)).astype(np.float32)
TRUTH, NOISE = RANDOM.normal(size=(2, PROMPTS, SAMPLES))
RECIPE = Recipe(rates=(0.02,) * 4, adaptive=False, clip=0, kl=0, prompts=4, samples=4)


def scores(rewards: Any) -> Any:
    return SimpleNamespace(rewards=lambda: np.asarray(rewards, dtype=np.float32))


def rehearsed(
    out: Path, log: Any, rewards: dict[str, Any], labels: dict[str, Any], slopes: Any = SLOPES, config: Recipe = RECIPE
) -> Rehearsal:  # fmt: skip
    held = SimpleNamespace(slopes=lambda: Slopes(slopes, 1.0), json=lambda name: {"tokens": 3.0})
    told = ({name: scores(each) for name, each in values.items()} for values in (rewards, labels))
    rehearse.function(config, held, *told, 1, out=out, log=log)
    return Rehearsal("", out)


def known(found: Rehearsed) -> list[Any]:
    return [found.proxy, found.kl, found.ess, *found.truth.values()]


def test_every_reward_model_teaches_and_every_truth_beside_them_under_each_truth(out, log):
    found = rehearsed(out, log, {"same": 3 * TRUTH + 1, "noise": NOISE}, {"gold": TRUTH, "tone": NOISE})
    assert found.names() == ["same", "noise", f"{OWN}gold", f"{OWN}tone"]
    told = found.rehearsed()
    assert told.steps == [0, 1, 2, 3, 4]
    assert list(told.truth) == ["gold", "tone"]
    assert {each.shape for each in known(told)} == {(4, 5, PROMPTS)}
    assert {name: each.shape for name, each in told.taught.items()} == dict.fromkeys(("gold", "tone"), (4, PROMPTS))
    assert told.taught["gold"].mean(axis=1) == pytest.approx(0, abs=1e-6)
    assert np.abs(told.taught["gold"]).max() > 1e-3
    assert np.allclose(told.truth["gold"][0], told.truth["gold"][2], atol=1e-5)  # felt alike, and so taught alike
    assert np.allclose(told.truth["tone"][1], told.truth["tone"][3], atol=1e-5)
    assert not np.allclose(told.truth["gold"][0], told.truth["gold"][1], atol=1e-3)
    assert told.truth["gold"][:, 0] == pytest.approx(0, abs=1e-6)


def test_what_is_learnt_goes_the_way_of_what_teaches(out, log):
    """Slopes that say what a sample is worth, so that all prompts teach one another the same."""
    told = rehearsed(out, log, {"against": -TRUTH}, {"gold": TRUTH}, TRUTH[..., None].astype(np.float32)).rehearsed()
    against, own = told.truth["gold"][:, -1].mean(axis=1)
    assert against < 0 < own


def test_a_prompt_without_two_labels_is_as_if_it_were_not_there(out, log):
    labels, kept = TRUTH.copy(), np.array([1, 2, 5, 6, 7, 11])
    rest = np.setdiff1d(np.arange(PROMPTS), kept)
    labels[rest] = np.nan
    labels[rest[0], 0] = 1.0
    labels[2, 3:] = np.nan
    whole = rehearsed(out, log, {"noise": NOISE}, {"gold": labels}).rehearsed()
    (out / "part").mkdir()
    part = rehearsed(out / "part", log, {"noise": NOISE[kept]}, {"gold": labels[kept]}, SLOPES[kept]).rehearsed()
    for one, other in zip(known(whole), known(part), strict=True):
        assert np.allclose(one[..., kept], other)
        assert np.isfinite(other).all()
        assert np.isnan(one[..., rest]).all()


def test_a_sample_without_a_label_is_no_draw(out, log):
    labels, changed = TRUTH.copy(), NOISE.copy()
    labels[:, 4:] = np.nan
    changed[:, 4:] = 100.0
    one = rehearsed(out, log, {"noise": NOISE}, {"gold": labels}).rehearsed()
    other = rehearsed(out, log, {"noise": changed}, {"gold": labels}).rehearsed()
    assert all(np.array_equal(*pair) for pair in zip(known(one), known(other), strict=True))


def test_of_labels_of_one_prompt_nothing_is_rehearsed_and_nothing_breaks(out, log):
    labels = np.full_like(TRUTH, np.nan)
    labels[3] = TRUTH[3]
    found = rehearsed(out, log, {"noise": NOISE}, {"gold": labels})
    assert found.names() == ["noise", f"{OWN}gold"]
    assert found.rehearsed().steps == [0]
    assert all(np.isnan(each).all() and each.shape == (2, 1, PROMPTS) for each in known(found.rehearsed()))
    assert found.rehearsed().taught["gold"].shape == (2, PROMPTS)


@pytest.mark.parametrize("group", [False, True])
def test_a_reward_that_does_not_vary_teaches_nothing(out, log, group):
    config = RECIPE.model_copy(update={"grouped": group})
    told = rehearsed(out, log, {"flat": np.ones_like(TRUTH)}, {"gold": TRUTH}, config=config).rehearsed()
    assert told.truth["gold"][0] == pytest.approx(0, abs=1e-6)
    assert np.abs(told.truth["gold"][1]).max() > 0.01
