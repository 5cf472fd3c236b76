"""Displacement: the published code's numbers, and correlations whose cause is known to be length or not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmpipe import displacement

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
published = pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/reference")
RANDOM = np.random.default_rng(0)


def reference(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    told = json.loads((REFERENCE / f"{name}.json").read_text())
    return told["inputs"], told["expected"]


# -- likelihoods of responses -----------------------------------------------------------------------------------------


@published
def test_the_accuracy_is_that_of_the_published_code():
    given, expected = reference("dpo_ipo_losses_and_displacement")
    accuracy = displacement.preference_accuracy(given["policy_preferred"], given["policy_dispreferred"])
    assert accuracy == pytest.approx(expected["preference_classifier_accuracy"], abs=1e-4)


def test_a_response_is_displaced_only_if_it_fell():
    assert displacement.displaced([-3, -3, -3], [-4, -3, -2]).tolist() == [True, False, False]


def test_a_tie_is_no_preference():
    assert displacement.preference_accuracy([-1, -2, -3], [-1, -3, -2]) == pytest.approx(1 / 3)


@published
def test_the_largest_decrease_is_that_of_the_published_printer():
    given, expected = reference("largest_preferred_probability_decrease")
    start, end, fall = displacement.largest_decrease(given["values"])
    assert start.tolist() == expected["start"]
    assert end.tolist() == expected["end"]
    assert fall == pytest.approx(expected["change"], abs=1e-5)


def test_the_largest_decrease_is_the_first_of_all_pairs_of_steps():
    runs = RANDOM.integers(0, 4, size=(200, 6)).astype(float)  # of few values, so that many falls are equal
    for run, *found in zip(runs, *displacement.largest_decrease(runs), strict=True):
        pairs = [(run[end] - run[start], start, end) for start in range(6) for end in range(start, 6)]
        fall, start, end = min(pairs)
        assert found == [start, end, fall]


@pytest.mark.parametrize("values", [[0.5, 0.4], [[]], [[0.5, math.nan]]])
def test_a_run_must_be_a_row_of_numbers(values):
    with pytest.raises(ValueError, match="runs, steps"):
        displacement.largest_decrease(values)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ([1, 2], [1], r"before \(2,\), after \(1,\)"),
        ([1, math.nan], [1, 2], "before of unit 1 is nan"),
        ([], [], "one"),
    ],
)
def test_what_is_no_column_of_numbers_is_refused(before, after, said):
    with pytest.raises(ValueError, match=said):
        displacement.displaced(before, after)


# -- likelihoods of tokens --------------------------------------------------------------------------------------------


@published
def test_orders_and_ranks_of_gains_are_those_of_the_published_callback():
    given, expected = reference("token_probability_change_ranks")
    before, after = given["initial_logprobs"], given["logprobs"]
    assert displacement.gain_order(before, after).tolist() == expected["prob_order"]
    assert displacement.gain_order(before, after, "logprob").tolist() == expected["logprob_order"]
    ranks = displacement.gain_ranks(before, after, given["preferred_ids"])
    assert ranks["prob"].tolist() == expected["prob_rank"]
    assert ranks["logprob"].tolist() == expected["logprob_rank"]
    assert displacement.gainers(before[0], after[0], 3) == expected["prob_order"][0][:3]


def test_a_rare_token_can_gain_most_of_the_logarithm_and_little_of_the_mass():
    before, after = np.log([0.60, 0.399, 0.001]), np.log([0.50, 0.490, 0.010])
    assert displacement.gainers(before, after, 2) == [1, 2]
    ranks = displacement.gain_ranks([before], [after], [2])
    assert {name: values.tolist() for name, values in ranks.items()} == {"prob": [1], "logprob": [0]}


@published
def test_the_geometry_of_unembeddings_is_that_of_the_published_code():
    given, expected = reference("token_unembedding_metrics")
    unembedding = np.array(given["unembedding"])
    found = displacement.unembedding_geometry(
        *(unembedding[given[f"{side}_ids"]] for side in ("preferred", "dispreferred"))
    )
    names = {
        "chosen_norm": "preferred_token_norms", "rejected_norm": "dispreferred_token_norms",
        "inner": "preferred_and_dispreferred_inner_products", "projection": "dispreferred_projection_coeffs",
        "excess": "preferred_norm_dispreferred_projection_coeff_diffs",
        "orthogonal": "norm_orthogonal_component_of_dispreferred_tokens",
    }  # fmt: skip
    for ours, theirs in names.items():
        assert found[ours] == pytest.approx(expected[theirs], abs=1e-5)


def test_the_geometry_of_one_pair_is_seen_in_the_plane():
    found = displacement.unembedding_geometry([3, 0], [1, 2])
    expected = {"chosen_norm": 3, "rejected_norm": math.sqrt(5), "inner": 3, "projection": 1, "excess": 2}
    assert found == pytest.approx(expected | {"orthogonal": 2})
    assert math.isnan(displacement.unembedding_geometry([0, 0], [1, 2])["orthogonal"])


# -- what a similarity foretold ---------------------------------------------------------------------------------------


def test_the_partial_correlation_is_that_of_the_residuals_of_ranks():
    from scipy.stats import rankdata

    x, y, given = RANDOM.normal(size=(3, 50)) + RANDOM.normal(size=50)
    ones = np.ones(50)
    left, right, third = map(rankdata, (x, y, given))
    plane = np.stack([ones, third], axis=1)
    residuals = [ranks - plane @ np.linalg.lstsq(plane, ranks)[0] for ranks in (left, right)]
    assert displacement.partial_spearman(x, y, given) == pytest.approx(np.corrcoef(*residuals)[0, 1])


def test_what_length_alone_explains_is_gone_once_length_is_given_and_what_it_does_not_is_left():
    length, noise = RANDOM.normal(size=4000), RANDOM.normal(size=(2, 4000))
    through = [length + values for values in noise]
    assert displacement.partial_spearman(through[0], -through[1], np.zeros(4000)) < -0.4
    assert displacement.partial_spearman(through[0], -through[1], length) == pytest.approx(0, abs=0.05)
    assert displacement.partial_spearman(through[0], -noise[0] + length, length) < -0.8


def test_resamples_are_taken_along_the_last_axis():
    x, y, given = RANDOM.normal(size=(3, 7, 20))
    found = displacement.partial_spearman(x, y, given)
    assert found.shape == (7,)
    assert found[3] == pytest.approx(displacement.partial_spearman(x[3], y[3], given[3]))


@pytest.mark.parametrize(
    ("x", "y", "given"),
    [
        ([1, 2, 3], [1, 3, 2], [2, 1, 3]),
        ([1, 1, 1, 1], [1, 2, 3, 4], [1, 3, 2, 4]),
        ([1, 2, 3, 4], [1, 3, 2, 4], [1, 2, 3, 4]),
        ([1, 2, 3, 4], [1, 3, 2, 4], [4, 3, 2, 1]),
        ([1, 3, 2, 4], [1, 2, 3, 4], [1, 2, 3, 4]),
    ],
    ids=["three units", "x constant", "given is x", "given is x backwards", "given is y"],
)
def test_where_nothing_is_left_to_correlate_there_is_no_partial_correlation(x, y, given):
    assert math.isnan(displacement.partial_spearman(x, y, given))


def test_buckets_are_quarters_from_the_lowest_similarity_up():
    x = np.array([8, 1, 7, 2, 6, 3, 5, 4])
    y = np.array([-8, 1, -6, 3, -1, 4, 0, 2])
    assert displacement.buckets(x, y) == [
        {"low": 1, "high": 2, "n": 2, "mean": 2, "displaced": 0},
        {"low": 3, "high": 4, "n": 2, "mean": 3, "displaced": 0},
        {"low": 5, "high": 6, "n": 2, "mean": -0.5, "displaced": 0.5},
        {"low": 7, "high": 8, "n": 2, "mean": -7, "displaced": 1},
    ]
    assert [part["n"] for part in displacement.buckets(x, y, 2)] == [4, 4]


def test_equal_similarities_fall_into_one_bucket_whatever_their_order():
    found = displacement.buckets([0, 0, 0, 0, 0, 5], [1, 2, 3, 4, 5, -9])
    assert [(part["n"], part["mean"]) for part in found] == [(5, 3), (1, -9)]
    assert sum(part["n"] for part in displacement.buckets(RANDOM.integers(0, 5, 99), RANDOM.normal(size=99))) == 99
