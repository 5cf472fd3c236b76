"""The sentences keep the papers' caution, and the table fits a terminal."""

from __future__ import annotations

import pandas as pd

from rmpipe import ranking

MODELS = {"gt": 0.3, "gt-convex": 0.1, "rm-a": 0.22, "rm-b": 0.2, "rm-c": 0.15, "rm-d": 0.05}


def answer(models=None, seeds=(1, 2, 3), proxy_sign=1):
    """Six reward models, two of them constructed, with variances and accuracies that disagree."""
    rows = []
    for index, (name, gain) in enumerate((models or MODELS).items()):
        for seed in seeds:
            luck = 0.004 * ((seed * 7 + index * 3) % 5 - 2)
            row = {"seed": seed, "policy": "weak", "algorithm": "rloo", "reward_model": name, "kind": "x"}
            numbers = {"truth_gain": gain + luck, "proxy_gain": proxy_sign * (0.9 - 0.1 * index + luck)}
            numbers |= {
                "variance": 0.1 + index * index % 5 / 5,
                "accuracy_on": 0.9 - 0.05 * index,
                "accuracy_off": 0.71,
            }
            rows.append(row | {"trained": not name.startswith("gt")} | numbers)
    return ranking.answer(pd.DataFrame(rows), draws=200)


def said(**options):
    return " ".join(answer(**options)["sentences"])


def test_the_leader_is_named_with_its_interval_and_what_it_is_told_apart_from():
    first = answer()["sentences"][0]
    assert first.startswith("weak, rloo: gt (ground-truth gain 0.30 [")
    assert first.endswith("teaches best, told apart from the next, rm-a.")


def test_who_cannot_be_told_apart_is_listed():
    assert "is highest, but not told apart from b; take any of them" in said(models={"a": 0.200, "b": 0.199, "c": 0.01})


def test_correlations_come_with_how_many_models_and_how_many_were_constructed():
    text = said()
    assert "over 6 reward models (2 of them constructed, some to set variance against accuracy" in text
    assert "over 4 reward models (all trained; too few to lean on)" in text
    assert "Spearman with the ground-truth gain / proxy gain: reward variance" in text


def test_variance_is_never_sold_alone():
    text = said()
    assert "variance tracks the PROXY gain" in text
    assert "variance AND accuracy together track the ground-truth gain (0.83;" in text
    assert "from -0.82 to 0.23" in text


def test_a_proxy_that_rose_while_the_truth_fell_is_named():
    text = said(models={"good": 0.2, "hacked": -0.2})
    assert "under hacked the proxy reward rose while the ground truth FELL" in text
    assert "FELL" not in said(models={"good": 0.2, "harmful": -0.2}, proxy_sign=-1)


def test_one_seed_is_confessed():
    assert "ONE seed" in said(seeds=(1,))
    assert "Student's over 3 seeds, uncorrected" in said()


def test_an_empty_table_says_so():
    assert ranking.sentences([], []) == ["Nothing was measured."]


def test_the_table_marks_what_was_constructed_and_shows_intervals():
    lines = ranking.table(answer()).splitlines()
    assert lines[0] == "weak, rloo"
    assert lines[1].split("  ")[0] == "rank"
    assert lines[2].startswith("1     gt *")
    assert "0.30 [0.29, 0.32]" in lines[2]
    assert lines[3].split()[1] == "rm-a"
    assert lines[-1].startswith("In brackets: 95 % intervals. * constructed, not trained.")


def test_the_table_stays_within_110_columns_and_cuts_the_middle_of_a_long_name():
    names = {f"organisation/a-reward-model-of-a-very-long-name-{size}b": -size / 10 for size in (3, 8)}
    text = ranking.table(answer(models=names))
    assert max(map(len, text.splitlines())) <= 110
    assert "-3b" in text
    assert "…" in text
