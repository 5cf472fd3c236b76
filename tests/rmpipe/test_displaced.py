"""The page of `displace`: the answer first, each number with interval and address, and nothing absent."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe import advice, attribution, displaced, invocation, page
from rmpipe.attribution import ALONE, Outcome
from rmpipe.citation import place
from rmpipe.single import UNEMBEDDED
from tests.rmpipe.test_page import Page, check_named_once, check_whole

SIMILARITIES = ("ches", "hidden", "edit", "length")
SUBSETS: dict[str, dict[str, Any]] = {
    "all": {"kind": "whole", "equal_length": None},
    "low": {"kind": "lowest", "by": "ches", "share": 0.5, "count": None, "equal_length": None},
    "drawn": {"kind": "random", "share": 0.5, "count": None, "equal_length": None},
    "q0": {"kind": "quantile", "by": "ches", "at": 0.0, "count": 20, "share": None, "equal_length": 0.0},
    "q5": {"kind": "quantile", "by": "ches", "at": 0.5, "count": 20, "share": None, "equal_length": 0.0},
    "q10": {"kind": "quantile", "by": "ches", "at": 1.0, "count": 20, "share": None, "equal_length": 0.0},
}
CHANGES = {"all": -2.0, "low": 1.0, "drawn": -2.5, "q0": 0.5, "q5": -1.0, "q10": -4.0}
CLAIMS: list[dict[str, Any]] = [
    {"name": "a", "claim": "the alike displace", "similarity": "ches", "test": "spearman"},
    {"name": "b", "claim": "fewer do", "higher": "low", "lower": "drawn"},
    {"name": "c", "claim": "more do", "higher": "drawn", "lower": "low", "training": "dpo", "policy": "small"},
]
NUMBER = {"value": 0.5, "low": 0.25, "high": 0.75}


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "low": None, "high": None}


def outcome(place_: dict[str, Any], training: str, subset: str) -> Outcome:
    """Pairs of which CHES, and nothing else, says what becomes of them."""
    draw = np.random.default_rng([place_["seed"], len(place_["policy"])])
    frame = pd.DataFrame({name: draw.normal(size=80) for name in SIMILARITIES})
    frame["length"] = draw.integers(-2, 3, 80).astype(float)
    frame = frame.assign(prompt=[str(n) for n in range(80)], chosen_tokens=9.0)
    frame["change"] = -frame["ches"] + 0.1 * draw.normal(size=80) - 0.5
    return Outcome(place_["policy"], place_["base"], place_["seed"], training, subset, frame)


def told() -> dict[str, Any]:
    """An answer as `weigh` writes it, small enough to be made at once."""
    return copy.deepcopy(_told())


@cache
def _told() -> dict[str, Any]:
    places = [
        {"seed": seed, "policy": policy, "base": f"{policy}{seed}"} for seed in (1, 2) for policy in ("small", "large")
    ]
    treated = [
        {**each, "training": training, "subset": subset}
        for each in places for training in ("dpo", "ipo") for subset in SUBSETS
    ]  # fmt: skip
    runs = []
    for index, each in enumerate(treated):
        run = {**each, "address": f"track/{index:012x}", "pairs": 40}
        value = CHANGES[each["subset"]] + 0.01 * each["seed"]
        run |= {name: estimate(0.5) for name in ("displaced", "accuracy", "kl")}
        run |= {"chosen": estimate(value), "rejected": estimate(value - 3), "refused": [f"classify/{index:012x}"]}
        runs.append(run | {"refusal": estimate(0.4), "refusal_before": estimate(0.9), "unparsed": estimate(0.1)})
    outcomes = [outcome(each, ALONE, "") for each in places] + [outcome(each, "dpo", "all") for each in places]
    answer: dict[str, Any] = {
        "flow": "displace", "study": "tiny", "question": "Which pairs?", "similarities": list(SIMILARITIES),
        "places": places, "treatments": treated, "subsets": SUBSETS, "trainings": {"dpo": {}, "ipo": {}},
        "seeds": [1, 2], "policies": ["small", "large"], "rows": attribution.rows(runs),
        "correlations": attribution.correlations(outcomes, SIMILARITIES),
        "parts": attribution.parts(outcomes, SIMILARITIES), "contrasts": attribution.judged(CLAIMS, outcomes, runs),
    }  # fmt: skip
    answer["ladders"] = attribution.ladders(answer["rows"], SUBSETS, runs)
    savings = attribution.savings(outcomes[:4], "ches")
    measured = attribution.measured(runs, "low", "drawn")
    answer["advice"] = {"by": "ches", "refuted": None, "savings": savings, "measured": measured, "of": 80,
                        "training": ALONE}  # fmt: skip
    answer["diagnoses"] = [
        {**each, "address": f"diagnose/{index:012x}", "pairs": 80, "similarities": {
            name: {"q0": -3350.9, "q50": 0.5 + index, "q100": 103.741} | ({"length": 0.8} if name == "ches" else {})
            for name in SIMILARITIES}}
        for index, each in enumerate(places)
    ]  # fmt: skip
    answer["singles"] = [
        {"policy": policy, "addresses": [f"single/{policy}{seed}" for seed in (1, 2)], "pairs": 160,
         "pairs_steady": 150, "decrease": NUMBER, "decrease_steady": estimate(0.000026), "chosen_change": NUMBER,
         "rejected_change": NUMBER, "displaced": NUMBER, "gained": [{"step": 1, "tokens": [["<b>no", 0.55]]}],
         "start": estimate(0.96), "end": estimate(0.27), "start_steady": estimate(0.99), "end_steady": estimate(0.03),
         "ranks": [{"step": 1, "prob": estimate(4.0), "logprob": NUMBER}],
         "unembedding": dict.fromkeys(UNEMBEDDED, estimate(0.125) if policy == "small" else None)}
        for policy in ("small", "large")
    ]  # fmt: skip
    answer["curves"] = [
        {**each, "address": run["address"], "steps": [0, 10, 25],
         "trained": {"chosen": [0.0, 1.0, run["chosen"]["value"]], "rejected": [0.0, -1.0, -5.0]}}
        for each, run in zip(treated, runs, strict=True)
    ]  # fmt: skip
    gained = {"first": [["oh", 1.0], ["no", 0.5]], "everywhere": [["<i>we", 0.0254]]}
    answer["gained"] = [{**each, **gained} for each in treated]
    text = {"prompt": "say <b>it", "chosen": " wow", "rejected": " <script>alert(1)</script>", "ches": 645.588}
    answer["samples"] = [text | {"end": "highest", "length": 1.0, "change": -7.457},
                         text | {"end": "lowest", "length": 0.0, "change": None}]  # fmt: skip
    answer["dropped"] = [text | {"length": -2.0, "rejected": " the worst"}]
    answer["sentences"] = advice.sentences(answer)
    return answer


def alone(answer: dict[str, Any]) -> dict[str, Any]:
    """What is left where nothing was trained."""
    names = ("rows", "correlations", "parts", "ladders", "contrasts", "singles", "curves", "gained", "treatments")
    answer |= {name: [] for name in names} | {"subsets": {}, "trainings": {}}
    answer["advice"] = {"by": None, "refuted": None, "savings": [], "measured": [], "of": 80, "training": None}
    answer["dropped"] = []
    answer["samples"] = [item | {"change": None} for item in answer["samples"]]
    return answer | {"sentences": advice.sentences(answer)}


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


@pytest.fixture
def answer() -> dict[str, Any]:
    return told()


@pytest.fixture(scope="module")
def html() -> str:
    return page.render(told(), "weigh/0123456789ab")


def test_the_page_is_whole_and_asks_nothing_of_a_network(html):
    check_whole(html)
    check_named_once(html)


def test_what_models_write_stays_text(html):
    assert "&lt;script&gt;alert(1)" in html
    assert "<script" not in html
    for token in ("&lt;b&gt;no", "&lt;i&gt;we"):
        assert f"<code>{token}</code>" in html


def test_sections_stand_in_their_order_and_the_answer_first(html):
    ids = re.findall(r'<h2 id="(\w+)"', html)
    assert ids == [
        "related", "quarters", "ladders", "subsets", "curves", "gained", "refusals", "alone", "drop", "pairs",
        "diagnosed",
        "claims", "reading", "from",
    ]  # fmt: skip
    first = words(html.split('id="answer"')[1].split("</section>")[0])
    assert "CHES goes with displacement, and the difference in length alone does not explain it." in first
    assert "Dropping the 25% of highest CHES costs 25% of the pairs" in first


def test_what_is_absent_is_left_out(answer):
    html = page.render(alone(answer))
    assert re.findall(r'<h2 id="(\w+)"', html) == ["pairs", "diagnosed", "reading", "from"]
    links = re.findall(r'<a [^>]*href="#([^"]+)"', html)
    places = set(re.findall(r' id="([^"]+)"', html))
    assert [link for link in links if link not in places] == []
    assert "Nothing was trained" in words(html)


def test_each_similarity_has_its_correlations_with_intervals_and_length_only_the_plain_one(html):
    table = html.split('aria-label="Correlations, Every base together, each pair trained on alone"')[1]
    rows = {row.split("<")[0]: row for row in table.split("</table>")[0].split('class="stay">')[2:]}
    assert list(rows) == list(SIMILARITIES)
    assert len(re.findall(r"</a><small>\S+ to \S+</small>", rows["ches"])) == 6
    assert rows["edit"].count('aria-label="unknown"') == 1
    assert rows["length"].count('aria-label="unknown"') == 3
    assert place("from", "every base", ALONE, "") in rows["ches"]


def test_figures_show_correlations_quarters_ladders_curves_and_refusals(html):
    labels = [attributes["aria-label"] for tag, attributes in Page(html).tags if tag == "svg"]
    counts = {
        r"alone, Spearman: ": 3, r"dpo on all, Spearman, given length: ": 3, r"by ches: lowest ": 6,
        r"dpo on all, Spearman, given edit: ": 3,
        r"over the quantile of the similarity: ches, equal length 0\.5\d, -0\.9\d, -3\.9\d$": 6,
        r", preferred \(y\+\), trained on, nats while training": 6, r"held out": 0,
        r"share refused: low 0\.40": 6,
    }  # fmt: skip
    for pattern, count in counts.items():
        assert sum(bool(re.search(pattern, label)) for label in labels) == count, pattern


def test_a_legend_says_which_quarter_and_which_end_and_what_is_settled(html):
    text = words(html)
    assert "1 of 4 intervals lies below 0 (the more alike, the more displaced): ches \N{MINUS SIGN}0.9" in text
    assert "nothing here is shown to go with displacement" not in text.split("Given the difference")[0]
    assert re.search(r"The lowest quarter moves by 0\.\d\d \(", text)
    assert "ches, equal length: 0.5" in text
    assert "After 25 steps low ends highest, 1.0" in text
    assert "; before training 0.90" in text


def test_subsets_are_ranked_with_their_rule(html):
    table = html.split('aria-label="Subsets, Every base together, dpo"')[1].split("</table>")[0]
    rows = re.findall(r'class="stay rank">(\S+)</td>.*?</span>(\w+)<small>([^<]+)<', table)
    assert [name for _, name, _ in rows] == sorted(CHANGES, key=lambda name: -CHANGES[name])
    assert rows[0] == ("1", "low", "50% of the pairs, lowest ches")
    assert rows[1][2] == "20 pairs around the 0% quantile of ches, of equal length"
    assert re.findall(r'class="n">([^<]+)<small>', table) == [
        "Pairs", "log pi(y+)", "log pi(y-)", "Displaced", "Accuracy", "KL"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"kind": "mine:Odd", "equal_length": None}, "Odd"),
        ({"kind": "random", "share": None, "count": 1, "equal_length": None}, "1 pair, drawn"),
        ({"kind": "other", "equal_length": None}, "other pairs"),
    ],
)
def test_a_rule_is_told_in_words(table, expected):
    assert displaced.rule(table) == expected


def test_a_token_that_a_run_does_not_name_counts_nothing_there():
    runs = [[["oh", 1.0], ["no", 0.5]], [["oh", 0.5]]]
    assert displaced._tokens(runs) == [("oh", 0.75), ("no", 0.25)]


def test_the_end_of_training_stands_at_its_own_step(answer):
    mine = [item for item in answer["curves"] if item["subset"] == "low" and item["training"] == "dpo"]
    across, up = displaced._stacked(mine, "trained", "chosen")
    assert across.tolist() == [[0, 10, 25]] * 4
    assert up[:, -1].tolist() == pytest.approx([1.01, 1.01, 1.02, 1.02])


def test_pairs_alone_have_their_largest_fall_from_start_to_end_of_all_and_of_the_steady(html):
    table = html.split('aria-label="Pairs trained on alone"')[1].split("</table>")[0]
    first = table.split('class="stay">small')[1].split("</tr>")[0]
    assert re.findall(r">([^<]+)</a>", first) == ["160", "0.5", "0.5", "0.5"]
    table = html.split('aria-label="Largest fall, pairs alone"')[1].split("</table>")[0]
    every, steady = table.split('class="stay">small')[1:3]
    assert re.findall(r">([^<]+)</a>", every.split("</tr>")[0]) == ["160", "0.5", "0.96", "0.27"]
    assert "loss never rose" in steady
    assert re.findall(r">([^<]+)</a>", steady.split("</tr>")[0]) == [
        "150", "2.6e\N{MINUS SIGN}05", "0.99", "0.03"
    ]  # fmt: skip


def test_pairs_alone_have_ranks_of_the_preferred_token_and_where_there_are_any_unembeddings(html):
    ranks = html.split('aria-label="Ranks of the preferred token, pairs alone"')[1].split("</table>")[0]
    assert re.findall(r">([^<]+)</a>", ranks) == ["4", "0.5"] * 2
    lines = html.split('aria-label="Unembeddings, pairs alone"')[1].split("</table>")[0]
    assert re.findall(r'<tr><th scope="row" class="stay">(\w+)', lines) == ["small"]
    assert re.findall(r">([^<]+)</a>", lines) == ["0.125"] * 6
    assert "&lt;w+, w" in lines


def test_the_first_of_the_pairs_to_drop_are_shown_and_the_file_of_all_is_named(html, answer):
    part = words(html.split('id="drop"')[1].split("</section>")[0])
    assert "stand with their texts in drop.parquet , in the folder of weigh/0123456789ab" in part
    assert "CHES 645.6 ; the rejected response has 2 tokens fewer than the chosen one." in part
    assert "the worst" in part
    assert 'id="drop"' not in page.render(answer | {"dropped": []})


def test_runs_without_a_number_are_not_counted_as_runs_it_rests_on(answer):
    for item in answer["correlations"]:
        if item["similarity"] == "hidden":
            item["used"]["equal_length"] = {"bases": 1, "runs": 2}
    assert "4 runs on 4 bases (hidden, equal length: 2 runs on 1 base)" in page.render(answer)


def test_example_pairs_say_length_in_words_and_no_change_where_there_is_none(html):
    part = words(html.split('id="pairs"')[1].split("</section>")[0])
    assert "CHES 645.6 ; the rejected response has 1 token more than the chosen one; trained on alone" in part
    assert "CHES 645.6 ; the rejected response has as many tokens as the chosen one." in part


def test_the_diagnosis_has_quantiles_and_how_far_ches_is_length(html):
    table = html.split('aria-label="Similarities, small"')[1].split("</table>")[0]
    assert "goes with that of the difference in length with Spearman 0.80" in words(table)
    row = table.split('class="stay">ches')[1].split("</tr>")[0]
    assert re.findall(r">([^<]+)</a><small>([^<]*)<", row)[:2] == [
        ("\N{MINUS SIGN}3,351", "\N{MINUS SIGN}3,351 to \N{MINUS SIGN}3,351"), ("1.5", "0.5 to 2.5")
    ]  # fmt: skip


def test_claims_are_marked_and_each_unit_has_its_forest(html):
    part = html.split('id="claims"')[1].split("</section>")[0]
    assert re.findall(r'<b class="(\w+)">(\w+)', part) == [("held", "Held"), ("held", "Held"), ("reversed", "Reversed")]
    labels = re.findall(r'aria-label="([^":]+): a|aria-label="([^":]+): b', part)
    assert labels == [("rank correlation", ""), ("", "difference, nats")]
    entry = html.split('id="from/claim/c"')[1].split("</ul>")[0]
    assert re.findall(r'#(from/[^"]+)"', entry) == [place("from", "small", "dpo", name) for name in ("drawn", "low")]


def test_every_entry_has_the_address_of_each_policy_and_seed(html, answer):
    for row in answer["rows"]:
        key = (row["policy"], row["training"], row["subset"])
        entry = html.split(f'id="{place("from", *key)}"')[1].split("</ul>")[0]
        assert re.findall(r"rmpipe why ([^<]+)</code>", entry) == [
            *row["addresses"]["track"], *row["addresses"]["classify"]
        ]  # fmt: skip
    entry = html.split(f'id="{place("from", "every base", ALONE, "")}"')[1].split("</ul>")[0]
    assert re.findall(r"why ([^<]+)</code> <span class=\"soft\">([^<]+)<", entry) == [
        ("single/small1", "small, seed 1"), ("single/small2", "small, seed 2"),
        ("single/large1", "large, seed 1"), ("single/large2", "large, seed 2"),
    ]  # fmt: skip
    entry = html.split('id="from/diagnose/large"')[1].split("</ul>")[0]
    assert re.findall(r"why (diagnose/[^<]+)</code>", entry) == ["diagnose/000000000001", "diagnose/000000000003"]


def test_the_page_names_its_answer_or_how_to_get_it(html, answer):
    assert "rmpipe why weigh/0123456789ab" in html
    assert "rmpipe rank tiny" in page.render(answer)


def test_mlflow_gets_each_figure_once_and_in_the_folder_of_its_heading(html):
    names = [name for name, _ in invocation.figures(html)]
    assert len(names) == html.count("<svg ")
    assert {name.split("/")[1] for name in names} >= {"every-base-together-dpo", "the-change-over-quantiles", "claims"}
    assert all(name.count("/") == 2 for name in names)
