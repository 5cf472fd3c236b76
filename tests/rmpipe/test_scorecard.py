"""Scorecards: what predictors score is what ranks, sums and resamples by hand say, and none is helped by silence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from rmpipe import judgement
from rmpipe.interval import correlate
from rmpipe.scorecard import agreement, card, regret, reliability

GAIN = np.array([0.1, 0.5, 0.3, 0.9, 0.7, 0.2])


def cells(
    gain: Any = GAIN, seeds: int = 2, policies: tuple[str, ...] = ("weak",), built: int = 0, noise: float = 0.0,
    truths: tuple[str, ...] = ("gold",), **predictors: Any,
) -> pd.DataFrame:  # fmt: skip
    """A row a truth, seed, policy and reward model, the first of which are constructed."""
    random = np.random.default_rng(0)
    return pd.DataFrame([
        {"truth": truth, "seed": seed, "policy": policy, "algorithm": "rloo", "reward_model": f"m{place}",
         "trained": place >= built, "gain": each + noise * random.normal()}
        | {name: values[place] for name, values in predictors.items()}
        for truth in truths for policy in policies for seed in range(seeds) for place, each in enumerate(gain)
    ])  # fmt: skip


def of(rows: list[dict[str, Any]], predictor: str, over: str = "all") -> dict[str, Any]:
    (row,) = [row for row in rows if (row["predictor"], row["over"]) == (predictor, over)]
    return row


# -- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
def test_a_resample_scores_as_if_each_reward_model_stood_there_as_often_as_it_was_drawn(kind):
    random = np.random.default_rng(0)
    predicted = np.round(random.normal(size=6), 1)
    predicted[1] = predicted[2]
    counts = random.multinomial(6, np.full(6, 1 / 6), size=50)
    found = agreement(predicted, GAIN, counts, kind)
    for score, drawn in zip(found, counts, strict=True):
        index = np.repeat(np.arange(6), drawn)
        one, other = predicted[index], GAIN[index]
        if kind == "spearman":
            one, other = rankdata(one), rankdata(other)
        expected = np.corrcoef(one, other)[0, 1] if np.ptp(one) else 0.0
        assert score == pytest.approx(expected)


def test_who_tells_all_alike_scores_nothing_and_where_all_gained_alike_nobody_is_scored():
    assert agreement(np.ones(6), GAIN, np.ones((1, 6))).tolist() == [0]
    assert np.isnan(agreement(GAIN, np.ones(6), np.ones((1, 6))))
    once = np.eye(6)[:1] * 6
    assert np.isnan(agreement(GAIN, GAIN, once))


def test_regret_is_what_the_first_choice_loses_of_the_best_and_a_tie_at_the_top_is_a_coin():
    whole = np.ones((1, 6))
    assert regret(GAIN, GAIN, whole) == pytest.approx(0)
    assert regret(-GAIN, GAIN, whole) == pytest.approx(0.8)
    assert regret([0, 1, 0, 1, 0, 0], GAIN, whole) == pytest.approx(0.9 - (0.5 + 0.9) / 2)
    assert regret(np.zeros(6), GAIN, whole) == pytest.approx(0.9 - GAIN.mean())


def test_who_does_not_know_the_best_still_loses_it():
    told = np.where(GAIN == 0.9, np.nan, GAIN)
    assert regret(told, GAIN, np.ones((1, 6))) == pytest.approx(0.9 - 0.7)
    assert regret(told, GAIN, [[0, 2, 0, 0, 3, 1]]) == pytest.approx(0)  # the best was not drawn


# -- a card -----------------------------------------------------------------------------------------------------------


def test_a_cell_is_of_means_over_seeds():
    table = cells(forecast=GAIN)
    table.loc[table["seed"] == 0, "gain"] += 10.0 * (table["reward_model"] == "m0")
    table.loc[table["seed"] == 1, "gain"] -= 10.0 * (table["reward_model"] == "m0")
    row = of(card(table, draws=10)["cells"], "forecast")
    assert (row["n"], row["spearman"], row["regret"]) == (6, 1.0, 0.0)


def test_a_random_pick_has_no_order_and_loses_a_whole_share():
    told = card(cells(forecast=-GAIN), draws=50)
    random = of(told["cells"], "random")
    assert (random["spearman"], random["regret_share"]) == (None, 1.0)
    pooled = of(told["pooled"], "random")
    assert pooled["spearman"] == {"value": 0.0, "low": None, "high": None}
    assert pooled["regret_share"]["value"] == 1
    assert of(told["cells"], "forecast")["regret_share"] == pytest.approx(0.8 / (0.9 - GAIN.mean()))


def test_what_nobody_knows_is_left_out_and_what_is_told_of_all_alike_counts_as_nothing():
    told = card(cells(policies=("weak", "strong"), forecast=GAIN, ip=np.full(6, np.nan), variance=np.ones(6)), draws=50)
    assert {row["predictor"] for row in told["cells"]} == {"forecast", "variance", "random"}
    assert {row["spearman"] for row in told["cells"] if row["predictor"] == "variance"} == {None}
    assert of(told["pooled"], "variance")["spearman"]["value"] == 0


def test_cells_of_fewer_than_three_are_left_out():
    assert card(cells(GAIN[:2], forecast=GAIN[:2]))["sentences"] == [judgement.NOTHING]
    told = card(cells(built=4, forecast=GAIN), draws=10)
    assert {row["over"] for row in told["pooled"]} == {"all"}  # but two are trained
    assert {row["over"] for row in card(cells(built=3, forecast=GAIN), draws=10)["pooled"]} == {"all", "trained"}


def test_reward_models_are_resampled_together_in_every_policy_and_under_every_truth():
    random = np.random.default_rng(1)
    forecast = GAIN + 0.3 * random.normal(size=6)
    one = of(card(cells(forecast=forecast), draws=500)["pooled"], "forecast")
    many = card(cells(policies=("a", "b", "c", "d"), truths=("x", "y"), forecast=forecast), draws=500)["pooled"]
    assert of(many, "forecast")["spearman"] == pytest.approx(one["spearman"])  # copies of one cell tell nothing more
    assert (of(many, "forecast")["policies"], of(many, "forecast")["truths"], of(many, "forecast")["cells"]) == (
        4,
        2,
        8,
    )


def test_the_difference_to_a_rival_is_paired():
    random = np.random.default_rng(2)
    forecast = GAIN + 0.3 * random.normal(size=6)
    pooled = card(cells(forecast=forecast, variance=2 * forecast, accuracy_on=-forecast), draws=500)["pooled"]
    assert of(pooled, "forecast")["difference"] is None
    assert of(pooled, "variance")["difference"]["spearman"] == {"value": 0.0, "low": None, "high": None}
    other = of(pooled, "accuracy_on")["difference"]["spearman"]
    assert other["value"] == pytest.approx(2 * of(pooled, "forecast")["spearman"]["value"])
    assert other["low"] < other["value"]


def test_what_a_forecast_refuses_counts_as_tied_at_the_mean_of_what_it_tells():
    refused = np.where(GAIN < 0.4, np.nan, 2.0**GAIN)  # it tells of three of six, and orders these as they came out
    told = card(cells(forecast=refused, variance=refused), draws=50)
    tied = np.where(np.isnan(refused), np.nanmean(refused), refused)
    row, rival = (of(told["cells"], name) for name in ("forecast", "variance"))
    assert (row["n"], row["spearman"]) == (3, pytest.approx(float(correlate(tied, GAIN, "spearman"))))
    assert row["pearson"] == pytest.approx(np.corrcoef(tied, GAIN)[0, 1])
    assert row["regret"] == 0  # whom it does not tell of, it does not choose
    assert rival["spearman"] == 1  # a rival is scored on what is known of it
    pooled = of(told["pooled"], "forecast")
    assert pooled["spearman"]["value"] == pytest.approx(row["spearman"])
    assert (pooled["asked"], pooled["refused"]) == (6, 3)


def test_a_forecast_that_tells_of_one_alone_scores_nothing_and_of_none_is_left_out_of_that_cell():
    one = np.where(GAIN == 0.9, GAIN, np.nan)
    table = cells(policies=("weak", "strong"), forecast=one, variance=GAIN)
    assert of(card(table, draws=50)["pooled"], "forecast")["spearman"]["value"] == 0
    table.loc[table["policy"] == "strong", "forecast"] = np.nan
    told = card(table, draws=50)
    assert of(told["pooled"], "forecast")["cells"] == 1
    said = "; 5 of 6 forecasts are refused, and count as tied; of 1 policy by a ground truth it tells nothing."
    assert told["sentences"][0].endswith(said)


def test_the_difference_to_a_rival_is_over_the_reward_models_that_both_know():
    forecast, rival = GAIN.copy(), -GAIN
    forecast[0], rival[1] = np.nan, np.nan
    forecast[2] = 0.8  # of m2 to m5 it takes one for too good
    told = of(card(cells(forecast=forecast, variance=rival), draws=200)["pooled"], "variance")["difference"]
    among = slice(2, 6)
    own = float(correlate(forecast[among], GAIN[among], "spearman"))
    assert told["spearman"]["value"] == pytest.approx(own + 1)
    assert told["pearson"]["value"] == pytest.approx(np.corrcoef(forecast[among], GAIN[among])[0, 1] + 1)
    assert told["regret"]["value"] == pytest.approx(0.2 - 0.9)


def test_the_interval_of_a_pool_covers_the_correlation_that_drawing_reward_models_has():
    covered = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        gain = random.normal(size=30)
        told = card(cells(gain, forecast=gain + random.normal(size=30)), draws=200)
        found = of(told["pooled"], "forecast")["pearson"]
        covered.append(found["low"] <= np.sqrt(0.5) <= found["high"])
    assert np.mean(covered) > 0.85


def test_a_card_is_json_and_the_same_again():
    table = cells(built=3, noise=0.1, policies=("weak", "strong"), forecast=GAIN, variance=GAIN**2, proxy=-GAIN)
    told = card(table, draws=100)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert card(table, draws=100) == told


# -- how far gains agree with themselves ------------------------------------------------------------------------------


def test_the_ground_truth_itself_is_no_candidate_of_any_predictor():
    told = np.array([0.2, 0.1, 0.3, 1.0, 0.0, 0.4])
    table = cells(truths=("gold", "tone"), forecast=told, variance=told)
    named = table["reward_model"].replace({"m3": "gold"})  # the best, and said to be so
    rows = card(table.assign(reward_model=named), draws=50)
    for predictor in ("forecast", "variance", "random"):
        own, other = ((row["n"], row["regret"]) for row in rows["cells"] if row["predictor"] == predictor)
        assert own == (5, pytest.approx(0.7 - (np.delete(GAIN, 3).mean() if predictor == "random" else 0.2)))
        assert other == (6, pytest.approx(0.9 - GAIN.mean() if predictor == "random" else 0))
    assert "the ground truth itself aside, Spearman of the forecast" in rows["sentences"][0]
    own = table[table["truth"] == "gold"].assign(reward_model=named, truth="labels", judge="gold")
    assert [row["n"] for row in card(own, draws=50)["cells"] if row["predictor"] == "forecast"] == [5]
    alone = table.assign(reward_model="gold", truth="gold").iloc[:2]
    assert card(alone, draws=50)["sentences"] == [judgement.NOTHING]


def test_the_share_between_reward_models_and_the_ceiling_are_those_that_the_gains_were_drawn_with():
    random, found = np.random.default_rng(0), []
    for _ in range(40):
        gain = random.normal(size=25)
        table = cells(gain, seeds=3)
        table["gain"] += random.normal(size=len(table)) + 5.0 * table["seed"]  # what a seed does to all tells nothing
        (row,) = reliability(table)
        found.append([row["between"], row["ceiling"] ** 2])
    assert np.mean(found, axis=0) == pytest.approx([1 / 2, 3 / 4], abs=0.06)


def test_the_ceiling_is_of_who_does_not_know_the_seed_and_who_sees_its_reward_models_goes_beyond():
    random, found = np.random.default_rng(0), []
    for _ in range(40):
        gain = random.normal(size=25)
        table = cells(gain, seeds=2)
        table["gain"] += random.normal(size=len(table))
        means = table.groupby("reward_model", sort=False)["gain"].mean().to_numpy()
        seen = of(card(table.assign(forecast=table["gain"]), draws=2)["cells"], "forecast")
        found.append([float(correlate(gain, means, "pearson")), reliability(table)[0]["ceiling"], seen["pearson"]])
    blind, ceiling, seeing = np.mean(found, axis=0)
    assert blind == pytest.approx(ceiling, abs=0.05)
    assert seeing == pytest.approx(1) != pytest.approx(ceiling, abs=0.05)


def test_where_reward_models_do_not_differ_beyond_seeds_it_is_said_and_of_one_seed_nothing_is():
    random = np.random.default_rng(3)
    table = cells(policies=("weak", "strong"), forecast=GAIN, noise=0.01)
    weak = table["policy"] == "weak"
    table.loc[weak, "gain"] = random.normal(size=int(weak.sum()))
    (row,) = reliability(table)
    assert row["by_seed"] == [{"truth": "gold", "policy": "weak"}]
    said = card(table, draws=50)["sentences"]
    alike = "On weak by gold reward models are not shown to differ beyond what differs by seed (F test at 5%)."
    assert any(text.endswith(alike) for text in said)
    (row,) = reliability(cells(seeds=1))
    assert (row["spearman"], row["by_seed"]) == (None, None)


# -- in words ---------------------------------------------------------------------------------------------------------


def test_the_sentences_say_of_how_many_by_how_much_and_what_is_not_supported():
    random = np.random.default_rng(0)
    gain = random.normal(size=20)
    told = cells(gain, built=5, noise=0.2, forecast=gain + 0.1 * random.normal(size=20),
                 variance=random.normal(size=20), policies=("weak", "strong"))  # fmt: skip
    first, rival, alone, *_, noise, last = card(told, draws=300)["sentences"]
    assert first.startswith("rloo: over 20 reward models (5 constructed), 2 policies and 1 ground truth, Spearman of")
    assert "% of what a random pick loses." in first
    assert rival.endswith("The interval of the forecast lies wholly above every rival's value.")
    assert alone.startswith("rloo: over 15 trained reward models, 2 policies")
    assert "the gains of two seeds agree at Spearman 0.9" in noise
    assert "who does not know the seed could not be expected to correlate with the mean of 2 at more than 0." in noise
    assert noise.endswith("(Pearson); who sees each seed's own reward models may.")
    assert last.startswith("Not supported: that any of this holds for another policy, ground truth, algorithm or")
    assert "Intervals are over 20 reward models (5 constructed, which stand for no others), with" in last


def test_a_forecast_that_a_rival_may_beat_is_said_to_be_so_and_one_with_holes_how_many():
    random = np.random.default_rng(0)
    forecast = random.normal(size=6)
    forecast[0] = np.nan
    first, rival, *_ = card(cells(forecast=forecast, variance=GAIN), draws=300)["sentences"]
    assert first.endswith("; 1 of 6 forecasts are refused, and count as tied.")
    assert "the best rival, reward variance, has 1.00 (" in rival
    assert rival.endswith("The interval of the forecast does not lie wholly above every rival's value.")


def test_without_a_forecast_its_rivals_are_told_all_the_same():
    first, rival, *_ = card(cells(variance=GAIN, accuracy_on=-GAIN), draws=50)["sentences"]
    assert first.endswith("there is no forecast.")
    assert rival == "rloo: the best, reward variance, has 1.00 and loses 0.00 sd."


def test_the_table_has_a_line_a_predictor():
    told = card(cells(built=3, forecast=GAIN, variance=-GAIN), draws=50)
    lines = judgement.table(told).splitlines()
    assert lines[0] == "rloo, all reward models"
    assert [line.split("  ")[0] for line in lines[1:5]] == [
        "predictor", "the forecast", "reward variance", "a random pick"]  # fmt: skip
    assert judgement.table(told, "trained").splitlines()[0] == "rloo, trained reward models"
