"""A file of labels becomes rollouts and the ground truth's scores of them, as others read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmpipe.artifact import Rollouts
from rmpipe.config import StudyError
from rmpipe.labelling import Labelling
from rmpipe.store import Store
from tasks.grade import grade, grade_labels
from tasks.stage import planning

CHAT = [{"role": "user", "content": "hello"}]
ROWS: list[dict[str, Any]] = [
    {"prompt": CHAT, "responses": ["a", "b", "c"], "labels": [1, None, 2.5]},
    {"prompt": [CHAT[0], *CHAT], "responses": ["", "d", "e"], "labels": [3, 4, 6], "finished": [True, True, False]},
]


@pytest.fixture
def config(tmp_path: Path) -> Labelling:
    (tmp_path / "labels.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return Labelling(path=str(tmp_path / "labels.jsonl"))


def test_rollouts_are_the_labelled_responses_and_say_which_were_cut_off(config: Labelling, out: Path):
    draft = grade.function(config, "mine", config.content(), out=out, log=None)
    assert draft.summary == "labels of 5 responses to 2 prompts, from labels.jsonl"
    rollouts = Rollouts.at(out)
    assert rollouts.pairs() == ([*[CHAT] * 3, *[CHAT * 2] * 3], ["a", "c", "a", "", "d", "e"])
    assert np.stack(rollouts.table()["finished"].to_list()).tolist() == [[True] * 3, [True, True, False]]
    assert rollouts.lengths().shape == (2, 3)


def test_labels_are_scores_of_them_with_none_where_a_response_is_repeated(config: Labelling, out: Path):
    draft = grade_labels.function(config, "mine", config.content(), Rollouts("grade/0", out), out=out, log=None)
    np.testing.assert_equal(np.load(out / "rollouts.npy"), [[1, 2.5, np.nan], [3, 4, 6]])
    told = {"labels": 5.0, "mean": pytest.approx(3.3), "std": pytest.approx(1.8574, abs=1e-4)}
    assert draft.metrics == told


def test_of_pairs_they_say_so_and_which_responses_were_cut_off(tmp_path: Path, out: Path):
    row = {"prompt": CHAT, "chosen": "a", "rejected": "b", "finished": [True, False]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row))
    config = Labelling(path=str(tmp_path / "pairs.jsonl"))
    grade.function(config, "mine", config.content(), out=out, log=None)
    assert Rollouts.at(out).table()["finished"][0].tolist() == [True, False]
    draft = grade_labels.function(config, "mine", config.content(), Rollouts("grade/0", out), out=out, log=None)
    assert draft.metrics["pairs"] == 1


def test_a_file_that_changed_since_is_refused(config: Labelling, out: Path):
    content = config.content()
    Path(config.path).write_text(json.dumps(ROWS[1]))
    with pytest.raises(StudyError, match="it has changed since the study was planned; run it again"):
        grade.function(config, "mine", content, out=out, log=None)
    assert list(out.iterdir()) == []


def test_a_place_moves_no_address_and_another_label_does(config: Labelling, tmp_path: Path):
    def addresses(config: Labelling) -> list[str]:
        with planning(Store(tmp_path / "home")) as plan:
            rollouts = grade(config, "mine", config.content())
            grade_labels(config, "mine", config.content(), rollouts)
        return list(plan.steps)

    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_text(Path(config.path).read_text())
    assert addresses(config) == addresses(Labelling(path=str(elsewhere)))
    elsewhere.write_text(json.dumps(ROWS[0]))
    assert not {*addresses(config)} & {*addresses(Labelling(path=str(elsewhere)))}
