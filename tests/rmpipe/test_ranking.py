"""The ranked table: intervals, shared ranks, and correlations that give the published values back (2503.15477)."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from rmpipe import ranking

PUBLIC = ("GRM-Gemma-2-2B", "GRM-Llama-3.2-3B", "RM-Tulu-V2-8B", "RM-Gemma-2B")
# Tables 10 and 12, four public reward models each: ground-truth gain, proxy gain, variance, on-policy accuracy; and,
# computed from them apart from this code, Pearson of variance and of on-policy accuracy with (proxy, truth).
OFF_POLICY = (0.802, 0.838, 0.860, 0.800)
TABLES = {
    ("Pythia-1B SFT", "rloo"): (
        (0.176, 0.148, 0.173, 0.108), (0.322, 0.272, 0.457, 0.474),
        (0.405, 0.528, 0.544, 0.549), (0.700, 0.700, 0.705, 0.639),
        (0.512, -0.560), (-0.562, 0.927),
    ),
    ("Llama-3.2-1B SFT", "rloo"): (
        (0.280, 0.278, 0.320, 0.274), (0.487, 0.484, 0.743, 0.898),
        (0.500, 0.562, 0.600, 0.644), (0.716, 0.737, 0.737, 0.676),
        (0.907, 0.143), (-0.653, 0.552),
    ),
    ("Llama-3.2-1B-Instruct", "rloo"): (
        (0.105, 0.124, 0.097, 0.101), (0.194, 0.232, 0.213, 0.339),
        (0.261, 0.323, 0.299, 0.336), (0.731, 0.758, 0.751, 0.647),
        (0.798, 0.227), (-0.895, 0.411),
    ),
    ("Pythia-1B SFT", "grpo"): (
        (0.131, 0.067, 0.101, 0.080), (0.296, 0.229, 0.430, 0.477),
        (0.405, 0.528, 0.544, 0.549), (0.700, 0.700, 0.705, 0.639),
        (0.478, -0.816), (-0.635, 0.354),
    ),
    ("Llama-3.2-1B SFT", "grpo"): (
        (0.290, 0.281, 0.274, 0.279), (0.514, 0.522, 0.796, 1.028),
        (0.500, 0.562, 0.600, 0.644), (0.716, 0.737, 0.737, 0.676),
        (0.913, -0.808), (-0.700, -0.116),
    ),
    ("Llama-3.2-1B-Instruct", "grpo"): (
        (0.150, 0.159, 0.139, 0.140), (0.230, 0.283, 0.336, 0.498),
        (0.261, 0.323, 0.299, 0.336), (0.731, 0.758, 0.751, 0.647),
        (0.762, -0.091), (-0.845, 0.521),
    ),
}  # fmt: skip


def cell(model, seed=1, policy="weak", algorithm="rloo", trained=True, **numbers):
    names = {"seed": seed, "policy": policy, "algorithm": algorithm, "reward_model": model}
    return names | {"kind": "explicit", "trained": trained} | numbers


def over_seeds(**gains):
    """One cell per reward model and seed, from its ground-truth gains seed by seed."""
    return pd.DataFrame(
        [cell(model, seed, truth_gain=gain) for model, values in gains.items() for seed, gain in enumerate(values)]
    )


def order(cells):
    return [(row["reward_model"], row["rank"]) for row in ranking.ranks(ranking.rows(cells), cells)]


def spearman(found, name, gain, kind="spearman"):
    return next(item[kind]["value"] for item in found if (item["property"], item["gain"]) == (name, gain))


def test_seeds_give_a_mean_with_student_s_interval():
    (row,) = ranking.rows(over_seeds(a=[1.0, 2.0, 3.0]))
    assert row["seeds"] == 3
    assert row["truth_gain"] == pytest.approx({"value": 2, "low": 2 - 2.48414, "high": 2 + 2.48414}, abs=1e-4)


def test_one_seed_keeps_its_own_interval_over_prompts():
    (row,) = ranking.rows(pd.DataFrame([cell("a", truth_gain=0.2, truth_gain_low=0.1, truth_gain_high=0.3, kl=1.5)]))
    assert row["truth_gain"] == {"value": 0.2, "low": 0.1, "high": 0.3}
    assert row["kl"] == {"value": 1.5, "low": None, "high": None}
    assert row["covariance"] is None


def test_a_number_that_one_seed_lacks_rests_on_the_others():
    cells = pd.DataFrame([cell("a", 1, variance=None), cell("a", 2, variance=0.4, variance_low=0.3, variance_high=0.5)])
    assert ranking.rows(cells)[0]["variance"] == {"value": 0.4, "low": 0.3, "high": 0.5}


def test_reward_models_that_seeds_cannot_tell_apart_share_a_rank():
    cells = over_seeds(c=[0.10, 0.11, 0.12], a=[0.30, 0.31, 0.32], b=[0.20, 0.34, 0.30])
    assert order(cells) == [("a", "1="), ("b", "1="), ("c", "3")]


def test_a_rank_is_shared_with_its_leader_not_passed_down_a_chain_of_neighbours():
    # b cannot be told from a, nor c from b; but c can from a, who leads
    cells = over_seeds(a=[0.30, 0.31, 0.32], b=[0.34, 0.15, 0.30], c=[0.20, 0.22, 0.21])
    assert order(cells) == [("a", "1="), ("b", "1="), ("c", "3")]


def test_an_uncertain_leader_lifts_nobody_whom_another_of_its_rank_beats():
    # wild leads, and is told apart from none; but b is beaten by steady, every time
    cells = over_seeds(wild=[1.2, 0.1, 0.3], steady=[0.30, 0.31, 0.32], b=[0.20, 0.21, 0.22])
    ranked = ranking.ranks(ranking.rows(cells), cells)
    assert [(row["reward_model"], row["rank"]) for row in ranked] == [("wild", "1="), ("steady", "1="), ("b", "3")]
    assert [row["not_told_from"] for row in ranked] == [["b"], [], []]
    (said, *_) = ranking.sentences(ranked, [])
    assert "but not told apart from steady (nor, so uncertain is its own gain, from b); take any of them" in said


def test_pairing_by_seed_tells_apart_what_two_wide_intervals_do_not():
    assert order(over_seeds(a=[0.11, 0.51, 0.91], b=[0.10, 0.50, 0.90])) == [("a", "1"), ("b", "2")]


def test_with_one_seed_the_prompts_decide():
    gains = {"a": [0.5, 0.6, 0.7, 0.6] * 5, "b": [0.4, 0.5, 0.6, 0.5] * 5, "c": [0.9, -0.2, 0.8, 0.4] * 5}
    cells = pd.DataFrame([cell(name, truth_gain=sum(g) / len(g), truth_gain_per_prompt=g) for name, g in gains.items()])
    assert order(cells) == [("a", "1"), ("b", "2="), ("c", "2=")]


def test_with_one_seed_and_no_prompts_nothing_is_told_apart():
    cells = pd.DataFrame([cell("a", truth_gain=0.9), cell("b", truth_gain=0.1)])
    assert order(cells) == [("a", "1="), ("b", "1=")]


def test_an_unknown_gain_has_no_rank_and_comes_last():
    assert order(over_seeds(x=[None, None], a=[0.1, 0.2])) == [("a", "1"), ("x", "?")]


def test_without_a_ground_truth_the_proxy_gain_ranks_and_it_is_said_loudly():
    cells = pd.DataFrame(
        [cell(m, s, truth_gain=math.nan, proxy_gain=g + s / 100) for m, g in (("a", 0.1), ("b", 0.3)) for s in (1, 2)]
    )
    answer = ranking.answer(cells)
    assert [(row["reward_model"], row["rank"], row["ranked_by"]) for row in answer["rows"]] == [
        ("b", "1", "proxy"),
        ("a", "2", "proxy"),
    ]
    assert answer["sentences"][0].startswith("WARNING: no ground truth is known")
    assert "PROXY" in ranking.table(answer)
    assert "teaches best" not in " ".join(answer["sentences"])


def test_each_policy_and_algorithm_has_its_own_order():
    cells = pd.concat(
        [over_seeds(a=[0.3, 0.3], b=[0.1, 0.1]), over_seeds(a=[0.1, 0.1], b=[0.3, 0.3]).assign(policy="strong")]
    )
    rows = ranking.ranks(ranking.rows(cells), cells)
    assert [(row["policy"], row["reward_model"], row["rank"]) for row in rows] == [
        ("weak", "a", "1"), ("weak", "b", "2"), ("strong", "b", "1"), ("strong", "a", "2"),
    ]  # fmt: skip


def test_table_1_gives_the_spearman_values_of_table_2_back():
    """The proxy gain itself is not tabulated, but its order is: that of the variance (Spearman 1.000 in Table 2)."""
    variance, on, off = (
        (0.630, 0.616, 0.555, 0.438, 0.314, 0.111),
        (0.660, 0.656, 0.640, 0.616, 0.587, 1.000),
        (0.630, 0.732, 0.758, 0.754, 0.762, 1.000),
    )
    cells = pd.DataFrame(
        [
            cell(f"{i}", variance=v, accuracy_on=a, accuracy_off=b, proxy_gain=v**3)
            for i, (v, a, b) in enumerate(zip(variance, on, off, strict=True))
        ]
    )
    found = ranking.correlations(ranking.rows(cells), draws=100)
    assert spearman(found, "variance", "proxy") == 1
    assert spearman(found, "accuracy_on", "proxy") == pytest.approx(0.143, abs=5e-4)
    assert spearman(found, "accuracy_off", "proxy") == pytest.approx(-0.943, abs=5e-4)
    assert spearman(found, "accuracy_mean", "proxy") == pytest.approx(-0.486, abs=5e-4)
    assert spearman(found, "variance_and_accuracy", "proxy") == pytest.approx(0.886, abs=5e-4)


@pytest.mark.parametrize(("policy", "algorithm"), TABLES)
def test_tables_10_and_12_give_their_correlations_back(policy, algorithm):
    truth, proxy, variance, on, of_variance, of_accuracy = TABLES[policy, algorithm]
    columns = zip(PUBLIC, truth, proxy, variance, on, OFF_POLICY, strict=True)
    cells = pd.DataFrame(
        [
            cell(m, policy=policy, truth_gain=g, proxy_gain=p, variance=v, accuracy_on=a, accuracy_off=b)
            for m, g, p, v, a, b in columns
        ]
    )
    found = ranking.correlations(ranking.rows(cells), draws=100)
    for name, expected in (("variance", of_variance), ("accuracy_on", of_accuracy)):
        ours = tuple(spearman(found, name, gain, "pearson") for gain in ("proxy", "truth"))
        assert ours == pytest.approx(expected, abs=6e-4)


def test_correlations_say_how_many_were_constructed_and_stand_for_the_trained_alone_from_four_on():
    cells = pd.DataFrame(
        [cell(f"{i}", trained=i < 4, variance=i * i % 5, truth_gain=i % 4, accuracy_on=None) for i in range(6)]
    )
    found = ranking.correlations(ranking.rows(cells), draws=100)
    assert [(item["over"], item["property"], item["n"], item["constructed"]) for item in found] == [
        ("all", "variance", 6, 2),
        ("trained", "variance", 4, 0),
    ]


def test_three_trained_reward_models_get_no_correlation_of_their_own():
    cells = pd.DataFrame([cell(f"{i}", trained=i < 3, variance=i, truth_gain=i % 2) for i in range(5)])
    assert {item["over"] for item in ranking.correlations(ranking.rows(cells), draws=100)} == {"all"}


def test_the_answer_is_json_without_nan():
    cells = over_seeds(a=[0.1, 0.2], b=[0.3, math.nan], c=[0.2, 0.3]).assign(variance=math.nan, kl=None)
    answer = ranking.answer(cells, [{"name": "x", "claim": "a beats b", "higher": "a", "lower": "b"}], draws=100)
    assert set(json.loads(json.dumps(answer, allow_nan=False))) == {"rows", "correlations", "contrasts", "sentences"}


def test_two_rows_of_one_cell_and_a_missing_column_are_refused():
    cells = over_seeds(a=[0.1])
    with pytest.raises(ValueError, match=r"two rows of one cell, \{'seed': 0, 'policy': 'weak'"):
        ranking.answer(pd.concat([cells, cells]))
    with pytest.raises(ValueError, match="no column policy; it has seed, algorithm"):
        ranking.answer(cells.drop(columns="policy"))
