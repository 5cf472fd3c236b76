"""The page of `generalise`: the answer first, each number with interval and address, and nothing absent."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

import pandas as pd
import pytest

from rmpipe import generalisation, generalised, page, trust
from rmpipe.citation import place
from tests.rmpipe.test_page import Page, check_named_once, check_whole

SETS = {"test": "in-distribution", "paraphrase": "token", "topics": "domain"}
KINDS = {"explicit": "explicit", "implicit": "implicit", "<i>asked": "generative"}
ACCURACY = {"test": (0.9, 0.7, 0.6), "paraphrase": (0.8, 0.6, 0.7), "topics": (0.7, 0.7, 0.5)}
CLAIMS: list[dict[str, Any]] = [
    {"name": "a", "claim": "words matter", "shift": "token", "higher": "explicit", "lower": "implicit"},
    {"name": "b", "claim": "they do not", "set": "paraphrase", "higher": "implicit", "lower": "explicit"},
    {"name": "c", "claim": "all alike", "set": "topics", "alike": ["explicit", "implicit"], "within": 0.001},
]


def trials(policies: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"seed": seed, "policy": policy, "base": policy, "reward_model": name, "kind": kind, "trained": True,
         "made_here": True}
        for seed in (1, 2) for policy in policies for name, kind in KINDS.items()
    ]  # fmt: skip


def frame(made: list[dict[str, Any]], policies: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for index, trial in enumerate(made):
        for name, shift in SETS.items():
            nudge = 0.005 * policies.index(trial["policy"]) * (1 if trial["reward_model"] == "explicit" else -1)
            row = trial | {"trial": index, "set": name, "shift": shift, "of_training": False}
            value = ACCURACY[name][list(KINDS).index(trial["reward_model"])] + nudge
            row |= {"accuracy": value, "margin": 1 + nudge, "loss": 0.6, "chosen": 0.1, "rejected": -0.002 + nudge}
            row |= {"cues": 0.8 if name == "test" else None, "carried": None if name == "test" else 0.25 + nudge}
            ends = {f"{key}_{end}": None for key in generalisation.SHOWN for end in ("low", "high")}
            rows.append(row | ends)
    return pd.DataFrame(rows)


def told() -> dict[str, Any]:
    """An answer as `judge` writes it, small enough to be made at once."""
    return copy.deepcopy(_told(("small", "large")))


@cache
def _told(policies: tuple[str, ...]) -> dict[str, Any]:
    made = trials(policies)
    rows = frame(made, policies)
    pairs = pd.DataFrame([
        {"trial": row.trial, "set": row.set, "asked": str(prompt), "id": str(prompt),
         "correct": float(prompt < round(200 * row.accuracy))}
        for row in rows.itertuples() for prompt in range(200)
    ])  # fmt: skip
    answer: dict[str, Any] = {"flow": "generalise", "study": "tiny", "question": "Which one?", "ground_truth": "truth"}
    answer |= {"sets": SETS, "seeds": [1, 2], "policies": list(policies), "correlations": []}
    answer["rows"] = generalisation.rows(rows, pairs, draws=100)
    for row in answer["rows"]:
        mine = [index for index, trial in enumerate(made) if trial["reward_model"] == row["reward_model"]
                and row["policy"] in (trial["policy"], generalisation.EVERY)]  # fmt: skip
        row["addresses"] = {"evaluate": [f"evaluate/{index:012x}" for index in mine]}
    answer["contests"] = generalisation.contests(rows, pairs, draws=100)
    answer["contrasts"] = generalisation.judged(CLAIMS, rows, pairs, draws=100)
    number = {"value": 0.5, "low": 0.25, "high": 0.75}
    one = {"policy": policies[0], "reward_model": "explicit"}
    answer["groups"] = [one | {"set": "test", "group": "algebra", "accuracy": number}]
    answer["phrases"] = [one | {"set": "test", "phrase": "I lean toward nope", "reward": number | {"value": -0.00321}}]
    answer["curves"] = [
        {key: trial[key] for key in ("policy", "reward_model", "seed")}
        | {"steps": [10, 20, 25], "sets": {"test": [0.5, 0.6, 0.7 + 0.01 * index]}}
        if trial["kind"] != "generative" else {**trial, "steps": [], "sets": {}}
        for index, trial in enumerate(made)
    ]  # fmt: skip
    shares = {"separator.positive": 0.625, "cosine.mean": 0.012, "cosine.positive": 0.51}
    answer["separations"] = [
        {"policy": policy, "seed": seed, "address": f"separate/{seed:012x}", "set": name, **shares}
        for policy in policies for seed in (1, 2) for name in SETS
    ]  # fmt: skip
    answer["generation"] = [
        {
            "policy": policies[0],
            "reward_model": "implicit",
            "accuracy": number,
            "solved": number,
            "solved_by_base": number,
        }
    ]
    text = {"prompt": "say <b>it", "chosen": " wow", "rejected": " <script>alert(1)</script>"}
    rewards = {"explicit": [0.0663860, 0.0663963], "implicit": [1.0, -1.0], "<i>asked": [0.5, 0.5]}
    answer["samples"] = [{"set": name, **text, "rewards": rewards} for name in SETS]
    answer["sentences"] = trust.sentences(answer["rows"], answer["generation"])
    return answer


def alone(answer: dict[str, Any]) -> dict[str, Any]:
    """The same of one policy."""
    return answer | {"policies": ["small"], "rows": [row for row in answer["rows"] if row["policy"] == "small"]}


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


@pytest.fixture
def answer() -> dict[str, Any]:
    return told()


@pytest.fixture(scope="module")
def html() -> str:
    return page.render(told(), "judge/0123456789ab")


def test_the_page_is_whole_and_asks_nothing_of_a_network(html):
    check_whole(html)
    check_named_once(html)


def test_what_models_write_stays_text(html):
    assert "&lt;script&gt;alert(1)" in html
    assert "<script" not in html
    assert "&lt;i&gt;asked" in html
    assert "<i>asked" not in re.sub(r'"[^"]*"', "", html)


def test_the_answer_comes_first_with_whom_to_trust_where(html):
    text = words(html.split('id="answer"')[1])
    assert (
        "Over 2 bases, trust explicit on test ( 0.90 ) and paraphrase ( 0.80 )" in text.split("Every base together")[0]
    )
    assert "topics (explicit 0.70 ) is not told apart from one or more others" in text.split("Every base together")[0]


def test_a_cell_has_its_interval_and_its_rank(html):
    first = html.split('id="row/every%20base/explicit"')[1].split("</tr>")[0]
    assert re.findall(r">([\d.]+)</a>", first) == ["0.90", "0.80", "0.70"]
    assert "rank 1</small>" in first
    last = html.split('id="row/every%20base/implicit"')[1].split("</tr>")[0]
    assert words(last).count("rank 1=") == 1  # on topics, where nothing tells it from the explicit one
    assert "0.67 to 0.73" in last


def test_one_not_told_from_the_leader_shares_its_rank_wherever_it_stands(answer):
    rows = [row for row in answer["rows"] if row["policy"] == "every base" and row["set"] == "test"]
    rows[0] |= {"rank": "1", "not_told_from": [rows[2]["reward_model"]]}
    rows[1]["rank"], rows[2]["rank"] = "2", "3"
    lines = generalised._lines(rows, KINDS, {"test": "in-distribution"})
    ranks = {line["name"]: line["cells"][0]["rank"] for line in lines}
    assert ranks == {"explicit": "1", "implicit": "2", "<i>asked": "1="}


def test_every_contest_is_seen_from_the_side_that_is_not_implicit():
    ends = {"value": 0.2, "low": 0.1, "high": 0.4}
    items = [
        {"policy": "p", "shift": "token", "higher": "im", "lower": "ex", "wins": 0.75, "runs": 4, "difference": ends},
        {"policy": "p", "shift": "token", "higher": "ex", "lower": "grm", "wins": 1.0, "runs": 4, "difference": ends},
        {"policy": "q", "shift": "token", "higher": "ex", "lower": "im", "wins": 1.0, "runs": 4, "difference": ends},
    ]
    (found,) = generalised.duels(items, "p", {"ex": "explicit", "im": "implicit", "grm": "generative"})
    assert (found["first"], found["second"], found["wins"]) == ("ex", "im", 0.25)
    assert found["difference"] == {"value": -0.2, "low": -0.4, "high": -0.1}


def test_runs_won_in_distribution_are_said_to_be_of_pairs_held_out(html):
    labels = [attributes["aria-label"] for tag, attributes in Page(html).tags if tag == "svg"]
    assert sum("held out, in-distribution, share of runs won: " in label for label in labels) == 3
    assert "sets, those of training pairs left out" in words(html)


def test_nobody_at_a_coin_s_accuracy_is_to_be_trusted(answer):
    answer = alone(answer)
    for row in answer["rows"]:
        row["accuracy"] = {"value": row["accuracy"]["value"] - 0.4, "low": 0.35, "high": 0.65}
    answer["sentences"] = trust.sentences(answer["rows"], [])
    text = words(page.render(answer).split("<body>")[1])
    assert "nobody is told from a coin for the better: trust none there" in text
    assert "nobody is told from a coin." in text
    assert not re.search("trust (?!none)", text.split('id="reading"')[0])


def test_claims_are_marked_by_what_became_of_them(html):
    part = html.split('id="claims"')[1].split("</section>")[0]
    assert re.findall(r'<b class="(\w+)">(\w+)', part) == [("held", "Held"), ("reversed", "Reversed"), ("open", "Not")]
    assert "1 held, 1 reversed, 1 not settled of 3 claims; 2 intervals exclude 0: a" in words(part)


def test_the_figures_show_contests_accuracies_margins_learning_and_cues(html):
    labels = [attributes["aria-label"] for tag, attributes in Page(html).tags if tag == "svg"]
    parts = [
        "under token-level shift, share of runs won: ",
        "accuracy, topics: ",
        "absolute margin, sd of rewards, test: ",
        "accuracy, test while training, ",
        "share that tokens explain, explicit: test 0.80; paraphrase 0.",
    ]
    for part in parts:
        assert sum(f", {part}" in label for label in labels) == 3, part  # every base, and each of two
    assert len(labels) == 1 + 3 * (3 + 3 + 3 + 1 + 3)  # the claims' forest; what each place has


def test_the_end_of_training_stands_at_its_own_step(answer):
    across, up = generalised._stacked([item for item in answer["curves"] if item["reward_model"] == "explicit"], "test")
    assert across.tolist() == [[10, 20, 25]] * 4
    assert up[:, -1].tolist() == pytest.approx([0.70, 0.73, 0.76, 0.79])


def test_what_is_absent_is_left_out(answer, html):
    for title in (
        "Token cues",
        "While they learn",
        "Generation beside",
        "untrained base",
        "each phrase",
        "group by group",
    ):
        assert title in words(html)
    answer = alone(answer)
    rows = [row | {"cues": None, "carried": None, "margin": None} for row in answer["rows"]]
    empty = {"rows": rows, "curves": [item | {"steps": [], "sets": {}} for item in answer["curves"]]}
    empty |= {name: [] for name in ("groups", "phrases", "separations", "generation", "contrasts")}
    bare = page.render(answer | empty)
    text = words(bare.split("<body>")[1].split('id="reading"')[0])
    for title in (
        "Token cues",
        "While they learn",
        "Generation",
        "untrained",
        "each phrase",
        "group by group",
        "claimed",
    ):
        assert title not in text
    assert "Absolute margin" not in text
    assert 'aria-label="unknown"' not in bare


def test_the_overlap_that_nobody_measured_has_no_column(html, answer):
    assert "Token overlap with originals" not in html
    rewritten = [item | {"overlap.shifted": 0.0204, "overlap.itself": 0.0476} for item in answer["separations"]]
    part = words(page.render(alone(answer) | {"separations": rewritten}).split('id="foretold"')[1])
    assert "Token overlap with originals" in part
    assert " 0.020 " in part


def test_rewards_whose_order_counts_are_told_apart(html):
    part = words(html.split('id="pairs"')[1].split("</section>")[0])
    assert "explicit: 0.066386 and 0.066396 , wrong" in part
    assert "implicit: 1 and \N{MINUS SIGN}1 , right" in part
    assert "asked: 0.5 and 0.5 , a tie" in part


def test_every_entry_has_the_address_of_each_policy_and_seed(html, answer):
    for row in answer["rows"]:
        entry = html.split(f'id="{place("from", row["policy"], row["reward_model"])}"')[1].split("</ul>")[0]
        assert re.findall(r"rmpipe why ([^<]+)</code>", entry) == row["addresses"]["evaluate"]
    entry = html.split('id="from/every%20base/implicit"')[1].split("</ul>")[0]
    assert re.findall(r'"soft">(\w+, seed \d)', entry) == [
        "small, seed 1",
        "large, seed 1",
        "small, seed 2",
        "large, seed 2",
    ]


def test_one_base_is_said_to_be_one():
    answer = alone(told())
    answer["sentences"] = trust.sentences(answer["rows"], [])
    text = words(page.render(answer))
    assert "On one base, which another may contradict" in text
    assert "ONE base: intervals are over prompts" in text
    assert "Every base together" not in text


def test_the_page_names_its_answer_or_how_to_get_it(html, answer):
    assert "rmpipe why judge/0123456789ab" in html
    assert "rmpipe rank tiny" in page.render(alone(answer))


def test_what_tokens_explain_is_one_column_wherever_it_was_fitted(html):
    table = html.split('aria-label="Other numbers, small"')[1].split("</table>")[0]
    heads = re.findall(r'"n">([A-Z][^<]+)</th>', table)
    assert heads == [
        "Absolute margin",
        "Loss",
        "Reward of the chosen",
        "Reward of the rejected",
        "Share that tokens explain",
    ]
    assert re.findall(r">([\d.]+)</a><small></small></td></tr>", table) == ["0.8", "0.25", "0.25"] * 3


def test_what_the_table_of_generation_tells_is_not_told_again(html):
    assert "small, implicit: tells right from wrong" not in words(html)
    assert "Student's over the means of 2 bases" in words(html).replace("&#39;", "'")


def test_the_means_of_groups_and_phrases_say_over_what_their_intervals_are(html):
    assert "In the tables below means have Student&#39;s intervals over 2 seeds" in html.replace("'", "&#39;")
