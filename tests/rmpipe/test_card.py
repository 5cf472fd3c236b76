"""What pages say: links only to runs that are there, and no text that MLflow would cut or misread."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmpipe import card
from rmpipe.card import Links
from rmpipe.journal import Execution

NOW = 1_795_573_000_000


def record(home: Path, address: str, **more: Any) -> str:
    folder = home / "store" / address
    folder.mkdir(parents=True)
    told = {"title": address.split("/")[0], "run_id": f"run-{address[-1]}", "inputs": {}, "kind": "Weights"} | more
    (folder / "record.json").write_text(json.dumps(told))
    return address


def execution(*inputs: tuple[str, str], **more: Any) -> Execution:
    told = {"stage": "align", "address": "align/0", "title": "align weak", "kind": "Policy", "study": "pocket"} | more
    return Execution(
        **told, params={}, runtime={}, labels={}, parent_run="p", surroundings={},
        inputs=[(name, address, "Weights", None) for name, address in inputs],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, "[train](#/runs/run-1)"),
        ({"created": "2026-11-25T02:16:40+0000"}, "[train](#/runs/run-1)"),
        ({"created": "2026-11-25T02:16:30+0000"}, "train (made elsewhere)"),
        ({"run_id": None}, "train (made elsewhere)"),
        ({"title": "train [on]|`x`<b>"}, r"[train \[on\]\|\`x\`&lt;b>](#/runs/run-1)"),
    ],
)
def test_a_link_is_made_to_a_run_that_mlflow_has_and_to_no_other(tmp_path: Path, told: dict, expected: str):
    record(tmp_path, "train/1", **told)
    assert Links(tmp_path, since=NOW).to("train/1") == expected


def test_what_is_gone_is_said_to_be(tmp_path: Path):
    assert Links(tmp_path).to("train/1") == "train/1 (its record is gone)"


def test_what_something_was_made_from_is_followed_to_the_beginning_and_each_only_once(tmp_path: Path):
    base = record(tmp_path, "pretrain/1")
    policy = record(tmp_path, "finetune/2", inputs={"base": base, "truth": None})
    teacher = record(tmp_path, "train/3", inputs={"base": policy, "components": {"a": base, "b": "derive/9"}})
    told = card.made_from([("policy", policy), ("teacher", teacher)], Links(tmp_path))
    assert list(told) == [
        "- policy: [finetune](#/runs/run-2)",
        "    - base: [pretrain](#/runs/run-1)",
        "- teacher: [train](#/runs/run-3)",
        "    - base: [finetune](#/runs/run-2)",
        "    - components: [pretrain](#/runs/run-1)",
        "    - components: derive/9 (its record is gone)",
    ]


def test_many_of_one_role_are_counted_not_named(tmp_path: Path):
    inputs = [("cells", record(tmp_path, f"align/{number}")) for number in range(9)]
    told = list(card.made_from(inputs, Links(tmp_path)))
    assert (len(told), told[-1]) == (5, "- cells: 5 more")


def test_a_card_says_what_was_made_from_what_for_whom_and_how_it_is_measured(tmp_path: Path):
    text = card.of_execution(execution(("policy", record(tmp_path, "finetune/2"))), Links(tmp_path), summary="gain +1")
    assert text.splitlines()[0] == "align weak: gain +1"
    assert "**Made from**\n\n- policy: [finetune](#/runs/run-2)\n\nAsked for by [pocket](#/runs/p)." in text
    assert "`rmpipe why align/0`" in text
    assert text.endswith(card.HOW["Policy"])


def test_an_error_longer_than_a_page_leaves_room_for_the_rest(tmp_path: Path):
    text = card.of_execution(execution(), Links(tmp_path), why_not=card.fault("FAILED", "`" * 9000))
    assert len(text) < card.LONGEST
    assert text.endswith(card.HOW["Policy"])


def test_the_numbers_of_a_reward_model_are_written_anew_each_time_below_what_was_written_once():
    first = card.scored("train off", [("weak.variance", 0.5, "m1"), ("weak.variance.min", 0.1, "m1")])
    more = [("weak.variance", 0.5, "m1"), ("weak.accuracy_on", 0.7, "m1"), ("weak.rloo.truth_gain", 0.25, "a1"),
            ("weak.rloo.forecast", 0.9, "a1")]  # fmt: skip
    again = card.scored(first, more)
    assert again == card.scored("train off", more)
    lines = again.replace("&nbsp;", "").splitlines()
    assert "| [weak](#/runs/m1) | 0.50 | 0.70 |  |  |" in lines
    assert "| [weak.rloo](#/runs/a1) | 0.25 | 0.90 |  |  |" in lines  # the forecast beside what came true
    assert "0.10" not in again
    assert card.scored("train off", []) == "train off"


def test_an_answer_that_does_not_fit_keeps_its_first_sentences_and_where_all_of_it_is():
    answer = {"question": "Which?", "sentences": ["First."] + ["x" * 3000] * 4, "rows": []}
    text = card.of_study(answer, "#/experiments/1/runs/r", ["figures/a/accuracy-against-variance.svg"])
    assert len(text) <= card.LONGEST
    assert text.startswith("Which?\n\nOpen [the report](#/experiments/1/runs/r/artifacts/report.html), ")
    assert "\n\nFirst.\n\n" in text
    assert text.endswith("(get-artifact?path=figures/a/accuracy-against-variance.svg&run_uuid=r)")


def test_what_was_found_on_sets_of_pairs_is_a_table_of_its_own():
    found = [("paraphrase.accuracy", 0.58, "r"), ("paraphrase.loss", 0.69, "r"), ("paraphrase.accuracy.hard", 0.4, "r")]
    told = card.scored("Trained.", [*found, ("weak.variance", 0.9, "m"), ("weak.margin", 1.0, "m")])
    policies, sets = told.partition(card.SCORES)[2].split("\n\n")
    assert "[weak](#/runs/m)" in policies
    assert [line.split("|")[1:4] for line in sets.replace("&nbsp;", "").splitlines()[2:]] == [
        [" [paraphrase](#/runs/r) ", " 0.58 ", " 0.69 "]
    ]


def test_an_answer_about_sets_of_pairs_leads_to_what_was_made_and_evaluated(tmp_path: Path):
    teacher = record(tmp_path, "train/1")
    labels = [{"policy": "small", "seed": "1"}, {"policy": "large", "seed": "1"}]
    runs = [record(tmp_path, f"evaluate/{n + 2}", inputs={"reward_model": teacher}, labels=labels[n]) for n in (0, 1)]
    row = {"reward_model": "im", "set": "para", "shift": "token", "rank": "1=", "loss": None}
    row["accuracy"] = {"value": 0.5, "low": 0.25, "high": 0.75}
    rows = [
        row | {"policy": "every base", "addresses": {"evaluate": runs}},
        row | {"policy": "small", "addresses": {"evaluate": runs[:1]}},
    ]
    told = card.ranking({"flow": "generalise", "question": "Which?", "rows": rows}, Links(tmp_path))
    every, small = told.replace("&nbsp;", "").split("**every base, para, token**")[1].split("**small, para, token**")
    made = "[small, seed 1](#/runs/run-1), [large, seed 1](#/runs/run-1)"
    evaluated = "[small, seed 1](#/runs/run-2), [large, seed 1](#/runs/run-3)"
    assert f"| 1= | im | 0.50 [0.25, 0.75] |  |  | {made} | {evaluated} |" in every
    assert small.endswith("|  |  | [seed 1](#/runs/run-1) | [seed 1](#/runs/run-2) |\n")


def test_an_answer_about_displacement_leads_to_what_was_trained_and_followed(tmp_path: Path):
    trained = record(tmp_path, "prefer/1")
    run = record(tmp_path, "track/2", inputs={"after": trained}, labels={"policy": "small", "seed": "1"})
    row = {"policy": "small", "training": "dpo", "subset": "low", "rank": "1", "addresses": {"track": [run]}}
    row["chosen"] = {"value": -0.5, "low": None, "high": None}
    told = card.ranking({"flow": "displace", "question": "Which?", "rows": [row]}, Links(tmp_path))
    lines = told.replace("&nbsp;", "").split("**small, dpo**")[1].split("\n")
    assert lines[2].startswith("| rank | subset | log pi(y+) |")
    assert lines[4].startswith("| 1 | low | -0.50 |")
    assert lines[4].endswith("| [seed 1](#/runs/run-1) | [seed 1](#/runs/run-2) |")


def test_a_stage_of_displace_is_seen_side_by_side_by_training_and_subset():
    view = json.loads(card.of_experiment("track", "7", "What training did.")["mlflow.sharedViewState.numbers"])
    assert view["orderByKey"] == "metrics.`trained.chosen`"
    assert view["selectedColumns"][-3:] == ["tags.`rmpipe.training`", "tags.`rmpipe.subset`", "tags.`rmpipe.seed`"]
    other = json.loads(card.of_experiment("measure", "7", "")["mlflow.sharedViewState.numbers"])
    assert other["selectedColumns"][-2:] == ["tags.`rmpipe.algorithm`", "tags.`rmpipe.seed`"]


def test_an_answer_about_vanishing_gradients_leads_to_what_each_arm_made(tmp_path: Path):
    labels = {"policy": "small", "reward": "rouge", "arm": "few", "seed": "1"}
    made = {stage: [record(tmp_path, f"{stage}/{n}", labels=labels)] for n, stage in
            enumerate(("score", "imitate", "align"), 1)}  # fmt: skip
    row = {"policy": "small", "reward": "rouge", "arm": "few", "rank": "1", "addresses": made}
    row["gain"] = {"value": 0.5, "low": 0.25, "high": 0.75}
    alone = row | {"arm": "rft", "rank": "2", "addresses": {"score": made["score"]}}
    told = card.ranking({"flow": "vanish", "question": "Where?", "rows": [row, alone]}, Links(tmp_path))
    lines = told.replace("&nbsp;", "").split("**small, rouge**")[1].split("\n")
    assert lines[2].startswith("| rank | arm | gain | gain, low std | gain, high std |")
    assert lines[4].startswith("| 1 | few | 0.50 [0.25, 0.75] |")
    assert lines[4].endswith("| [seed 1](#/runs/run-2) | [seed 1](#/runs/run-3) | [seed 1](#/runs/run-1) |")
    assert lines[5].endswith("|  |  | [seed 1](#/runs/run-1) |")


@pytest.mark.parametrize(
    ("stage", "number", "labels"),
    [
        ("gauge", "flat", ["policy", "reward", "seed"]), ("sift", "kept", ["policy", "reward", "seed"]),
        ("imitate", "labels", ["policy", "finetuning", "reward", "seed"]),
        ("control", "supervised.gain_modified", ["experiment", "seed"]),
    ],
)  # fmt: skip
def test_a_stage_of_vanish_is_seen_side_by_side_and_its_card_says_how_it_is_measured(tmp_path, stage, number, labels):
    view = json.loads(card.of_experiment(stage, "7", "")["mlflow.sharedViewState.numbers"])
    assert view["orderByKey"] == f"metrics.`{number}`"
    assert view["selectedColumns"][-len(labels) :] == [f"tags.`rmpipe.{label}`" for label in labels]
    text = card.of_execution(execution(stage=stage, kind="Measurement"), Links(tmp_path))
    assert text.endswith(card.HOW[stage])


def test_what_a_policy_can_learn_of_a_reward_model_stands_on_its_card():
    found = [("weak.flat", 0.25, "g"), ("weak.std", 0.5, "g"), ("weak.ratio", 0.01, "g"), ("weak.pearson", 0.9, "g")]
    told = card.scored("Trained.", found).partition(card.SCORES)[2].replace("&nbsp;", "").splitlines()
    assert [part.strip() for part in told[0].split("|")[1:4]] == [
        "gauged",
        "share of prompts that teach nothing",
        "mean std",
    ]
    assert [part.strip() for part in told[2].split("|")[1:-1]] == ["[weak](#/runs/g)", "0.25", "0.50", "", "", "0.01"]
