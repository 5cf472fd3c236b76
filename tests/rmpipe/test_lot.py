"""Lots: the chances are those of the draws, and what few labels say is right on average whatever the odds."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rmpipe import lot

ODDS = np.array([[0.2, 1.0, 3.0, 0.7, 1.5], [1.0, 1.0, 1.0, 1.0, 1.0]])


def designs(odds, count):
    """Every set with its probability, by hand."""
    sets = list(combinations(range(len(odds)), count))
    products = np.array([np.prod(odds[list(each)]) for each in sets])
    masks = np.array([np.isin(np.arange(len(odds)), each) for each in sets])
    return masks, products / products.sum()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_chances_of_two_are_those_of_all_sets_that_hold_both(count):
    found = lot.chances(ODDS, count)
    for odds, joint in zip(ODDS, found, strict=True):
        masks, probability = designs(odds, count)
        told = np.einsum("s,sj,sk->jk", probability, masks.astype(float), masks.astype(float))
        off = ~np.eye(5, dtype=bool)
        assert joint[off] == pytest.approx(told[off])


def test_each_prompt_has_so_many_and_they_are_drawn_by_their_odds():
    mask = lot.drawn(np.repeat(ODDS[:1], 20_000, axis=0), 2, np.random.default_rng(0))
    assert (mask.sum(axis=1) == 2).all()
    masks, probability = designs(ODDS[0], 2)
    assert mask.mean(axis=0) == pytest.approx(probability @ masks, abs=0.015)


@pytest.mark.parametrize("count", [2, 3])
def test_over_all_draws_few_labels_say_on_average_what_all_would(count):
    truth = np.array([3.0, -1.0, 0.5, 2.0, 100.0])
    masks, probability = designs(ODDS[0], count)
    joint = lot.chances(np.repeat(ODDS[:1], len(masks), axis=0), count)
    told = np.einsum("sjk,sk->sj", lot.weights(masks, joint), np.where(masks, truth, 0.0))
    assert probability @ told == pytest.approx(truth - truth.mean())


def test_what_all_labels_of_a_prompt_have_in_common_does_not_matter():
    mask = lot.drawn(ODDS, 3, np.random.default_rng(1))
    made = lot.weights(mask, lot.chances(ODDS, 3))
    assert np.einsum("pjk,pk->pj", made, mask * 1e6) == pytest.approx(0, abs=1e-6)


def test_with_all_labels_they_are_centred_and_no_more():
    mask = lot.drawn(ODDS, 9, np.random.default_rng(1))
    assert mask.all()
    truth = np.random.default_rng(2).normal(size=(2, 5))
    told = np.einsum("pjk,pk->pj", lot.weights(mask, lot.chances(ODDS, 9)), truth)
    assert told == pytest.approx(truth - truth.mean(axis=1, keepdims=True))
