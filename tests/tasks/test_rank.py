"""Ranking cells: what was left out of training is said where any of it was, and nothing else moves by that."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe.overoptimisation import UNKNOWN
from rmpipe.sieve import DIFFERENCE
from tasks.rank import rank

GAINS = {"off": 0.2, "offset": 0.5}


def cell(model: str, seed: int = 1) -> dict[str, Any]:
    names = {"seed": seed, "policy": "weak", "algorithm": "rloo", "reward_model": model}
    return names | {"kind": "explicit", "trained": True}


def measured(model: str) -> Any:
    told = {"variance": {"value": GAINS[model], "low": 0.1, "high": 0.6}, "flat_share": None}
    table = pd.DataFrame({"variance": [0.1, 0.2]})
    asked = pd.DataFrame({"prompt_id": ["0", "1"], "prompt": ["a", "b"], "responses": [[" c", " d"]] * 2})
    scores = SimpleNamespace(rewards=lambda: np.array([[0.0, 1.0], [1.0, 3.0]]))
    read = {"rollouts": SimpleNamespace(table=lambda: asked), "scores": scores}
    known = {"address": f"measure/{model}", "inputs": read, "record": {"config": {"threshold": 0.05}}}
    return SimpleNamespace(numbers=lambda: told, table=lambda: table, **known)


def sieve(dropped: float, deferred: float = 0.0) -> Any:
    return SimpleNamespace(record={"metrics": {"kept": 9.0, "dropped": dropped, "deferred": deferred}})


def taught(model: str, of: Any = None) -> Any:
    """A policy, trained on what this sieve leaves."""
    gains = [GAINS[model] - 0.1, GAINS[model] + 0.1]
    samples = pd.DataFrame({"prompt": ["a", "b"], "response": [" c", " d"], "truth_gain": gains})
    curve = pd.DataFrame({"step": [0, 3], "proxy": [0.0, 0.3], "kl": [0.0, 0.5], "length": [4.0, 5.0]})
    told = {"inputs": {"sieve": of}, "address": f"align/{model}"}
    return SimpleNamespace(samples=lambda: samples, table=lambda: curve, **told)


def answered(folder: Path, *sieves: Any) -> dict[str, Any]:
    """Of two reward models, or of one a sieve."""
    names = [[*GAINS][place % 2] for place in range(max(2, len(sieves)))]
    cells = [cell(name, 1 + place // 2) for place, name in enumerate(names)]
    policies = [taught(name, of) for name, of in zip(names, sieves or [None] * 2, strict=True)]
    rank.function(
        cells, [], {"study": "s", "ground_truth": None}, list(map(measured, names)), policies, out=folder, log=None
    )
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer


@pytest.mark.parametrize(
    ("sieves", "left"),
    [
        ([sieve(2), sieve(5)], "2 to 5 dropped"),
        ([sieve(3), sieve(3)], "3 dropped"),
        ([sieve(0), sieve(4)], "0 to 4 dropped"),
        ([sieve(0, 1), sieve(0, 7)], "1 to 7 deferred"),
        ([sieve(2), sieve(3), sieve(0, 1), sieve(0)], "0 to 3 dropped and 0 to 1 deferred"),
        ([sieve(0), sieve(0)], "none left out"),
        ([None, sieve(4)], "4 dropped"),
    ],
)
def test_how_many_prompts_were_left_out_is_said_and_how_that_differs_from_other_filters(out: Path, sieves, left):
    answer = answered(out, *sieves)
    said = f"Sifted: of the prompts that were sampled, {left} by each reward model under its policy; others are kept."
    assert answer["sentences"][-4:-2] == [said, DIFFERENCE]
    assert answer["sentences"][-1].startswith("Published: ")


def test_beside_these_sentences_a_sifted_answer_is_that_of_what_was_not_sifted(tmp_path: Path):
    answers = []
    for name, sieves in (("plain", ()), ("sifted", (sieve(1), sieve(2)))):
        (tmp_path / name).mkdir()
        answers.append(answered(tmp_path / name, *sieves))
    plain, sifted = answers
    assert not any("ifted" in text for text in plain["sentences"])
    assert DIFFERENCE not in plain["sentences"]
    del sifted["sentences"][-4:-2]
    assert sifted == plain
    assert [row["reward_model"] for row in plain["rows"]] == ["offset", "off"]


def test_how_far_to_go_is_answered_from_the_curves_and_shown_below_the_table(out: Path):
    answer = answered(out)
    assert answer["overoptimisation"] == {"rows": [], "sentences": [UNKNOWN]}
    told = textwrap.fill(UNKNOWN, 110, subsequent_indent="  ")
    assert (out / "table.txt").read_text().endswith(f"\nHow far to go:\n{told}\n")


def test_policies_of_before_there_were_sieves_are_ranked_as_they_were(out: Path, monkeypatch: pytest.MonkeyPatch):
    plain = answered(out)

    known = taught

    def bare(model: str, of: Any = None) -> Any:
        policy = known(model)
        policy.inputs = {}
        return policy

    monkeypatch.setitem(globals(), "taught", bare)
    assert answered(out) == plain
