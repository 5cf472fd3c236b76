"""The sieve: prompts at which a reward tells a policy's own responses apart are kept, the others go or wait."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from rmpipe.sieve import DIFFERENCE, FATES, Sifting, fates, sifted, written
from rmpipe.variance import flat, whiten

# Means 1, 2, 3 and 4; stds 0, sqrt(2) / 100, sqrt(2) and 2 sqrt(2).
REWARDS = [[1.0, 1.0], [1.99, 2.01], [2.0, 4.0], [2.0, 6.0]]
IDS = ["a", "b", "c", "d"]


def test_prompts_whose_whitened_std_is_under_the_threshold_teach_nothing():
    table = sifted(IDS, REWARDS, Sifting(threshold=0.05))
    assert list(table) == ["prompt_id", "mean", "std", "white_std", "fate"]
    assert table["prompt_id"].to_list() == IDS
    assert table["mean"].to_list() == pytest.approx([1, 2, 3, 4])
    assert table["std"].to_list() == pytest.approx([0, 0.01 * 2**0.5, 2**0.5, 2 * 2**0.5])
    assert table["white_std"].to_list() == pytest.approx(list(table["std"] / np.std(REWARDS, ddof=1)))
    assert table["fate"].to_list() == ["drop", "drop", "keep", "keep"]


def test_what_is_dropped_is_what_measuring_calls_flat():
    rewards = np.random.default_rng(0).normal(size=(200, 4)) * np.linspace(0, 1, 200)[:, None]
    table = sifted([str(n) for n in range(200)], rewards, Sifting(threshold=0.3))
    assert (table["fate"] == "drop").to_list() == flat(whiten(rewards), 0.3).tolist()


def test_a_threshold_of_nothing_drops_constant_rewards_alone_whatever_rounding_says():
    rewards = [[0.1] * 3, [0.1, 0.1, 0.1000001]]
    table = sifted(["a", "b"], rewards, Sifting(threshold=0))
    assert table["fate"].to_list() == ["drop", "keep"]
    assert table["std"][0] == table["white_std"][0] == 0


def test_the_lowest_share_goes_whatever_the_threshold():
    assert sifted(IDS, REWARDS, Sifting(threshold=9, low=0.25))["fate"].to_list() == ["drop", "keep", "keep", "keep"]
    assert sifted(IDS, REWARDS, Sifting(low=0.5))["fate"].to_list() == ["drop", "drop", "keep", "keep"]


def test_prompts_of_one_std_stay_together():
    constant = [[0.1] * 3, [0.7] * 3, [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]  # the first two round to unlike stds
    assert sifted(IDS, constant, Sifting(low=0.25))["fate"].to_list() == ["drop", "drop", "keep", "keep"]
    rewards = [[0.0, 1.0], [3.0, 4.0], [5.0, 6.0], [0.0, 9.0]]
    assert sifted(IDS, rewards, Sifting(low=0.25))["fate"].to_list() == ["drop", "drop", "drop", "keep"]


def test_what_teaches_nothing_may_wait_instead():
    assert sifted(IDS, REWARDS, Sifting(fate="defer"))["fate"].to_list() == ["defer", "defer", "keep", "keep"]


@pytest.mark.parametrize("config", [Sifting(), Sifting(low=0.25)])
def test_a_prompt_that_was_never_sampled_is_kept_and_moves_no_other(config: Sifting):
    known = sifted(IDS, REWARDS, config)
    table = sifted(["never", *IDS], [[np.nan] * 2, *REWARDS], config)
    assert table["fate"][0] == "keep"
    assert table.loc[0, ["mean", "std", "white_std"]].isna().all()
    pd.testing.assert_frame_equal(table[1:].reset_index(drop=True), known)


def test_a_sample_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="prompt 1, sample 0 is nan"):
        sifted(["a", "b"], [[1.0, 2.0], [np.nan, 1.0]], Sifting())
    with pytest.raises(ValueError, match="at least 2 samples"):
        sifted(["a"], [[1.0]], Sifting())


@pytest.mark.parametrize("wrong", [{"threshold": -1}, {"low": 0}, {"low": 1}, {"fate": "keep"}])
def test_numbers_that_sift_nothing_sensible_are_refused(wrong: dict):
    with pytest.raises(ValidationError):
        Sifting(**wrong)


def test_prompts_are_found_by_their_text_and_unknown_ones_are_told():
    chat = [{"role": "user", "content": "tell me"}]
    table = pd.DataFrame({"prompt_id": ["0", "0", "0"], "prompt": map(written, ["tell", chat, "me"]),
                          "fate": ["keep", "drop", "defer"]})  # fmt: skip
    other = [{"content": "tell me", "role": "user"}]
    assert fates(["me", other, "tell", "tell me"], table) == ["defer", "drop", "keep", "unsampled"]
    assert set(fates(["me", other, "tell", "x"], table)) == set(FATES)


def test_the_difference_from_filters_at_each_step_is_told_in_sentences():
    for other in ("DAPO", "verl", "OpenRLHF", "TRL", "initial policy", "current policy"):
        assert other in DIFFERENCE
