"""What others drew and scored becomes rollouts and scores, which are measured as ours are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmpipe.adoption import Adopting, adopted
from rmpipe.artifact import Rollouts, Scores
from rmpipe.config import StudyError
from rmpipe.store import Store
from rmpipe.teaching import Measuring
from tasks.adopt import adopt, adopt_scores
from tasks.measure import measure
from tasks.stage import planning

CHAT = [{"role": "user", "content": "hello"}]
ROWS: list[dict[str, Any]] = [
    {"prompt": CHAT, "responses": ["a", "bbb"], "rewards": {"one": [1, 2.5], "two": [3, 3]}},
    {"prompt": [CHAT[0], *CHAT], "responses": ["", "d"], "rewards": {"one": [3, 4], "two": [2, 9]}},
]


@pytest.fixture
def config(tmp_path: Path) -> Adopting:
    (tmp_path / "rolls.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return Adopting(path=str(tmp_path / "rolls.jsonl"))


def test_rollouts_are_read_as_ours_are_with_lengths_in_characters(config: Adopting, out: Path):
    draft = adopt.function(config, adopted(config).content, out=out, log=None)
    assert draft.summary == "2 prompts x 2 from rolls.jsonl"
    rollouts = Rollouts.at(out)
    prompts, responses = rollouts.pairs()
    assert prompts == [CHAT, CHAT, CHAT * 2, CHAT * 2]
    assert responses == ["a", "bbb", "", "d"]
    assert (rollouts.unit, rollouts.lengths().tolist()) == ("characters", [[1, 3], [0, 1]])
    assert list(rollouts.preview()) == ["prompt", "response"]


def test_lengths_are_in_tokens_where_they_were_counted(tmp_path: Path, out: Path):
    rows = [{**row, "tokens": [7, 8]} for row in ROWS]
    (tmp_path / "rolls.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = Adopting(path=str(tmp_path / "rolls.jsonl"))
    adopt.function(config, adopted(config).content, out=out, log=None)
    rollouts = Rollouts.at(out)
    assert (rollouts.unit, rollouts.lengths().tolist()) == ("tokens", [[7, 8], [7, 8]])
    assert rollouts.preview()["tokens"].tolist() == [7, 8, 7, 8]


def test_scores_are_of_one_reward_model_as_the_file_has_them(config: Adopting, out: Path):
    content = adopted(config).content_of("two")
    draft = adopt_scores.function(config, "two", content, Rollouts("adopt/0", out), out=out, log=None)
    assert np.load(out / "rollouts.npy").tolist() == [[3, 3], [2, 9]]
    assert draft.summary == "2 x 2"


def test_a_file_that_changed_after_it_was_looked_into_is_refused(config: Adopting, out: Path):
    content = adopted(config).content
    Path(config.path).write_text(json.dumps(ROWS[0]))
    with pytest.raises(StudyError, match="it has changed since it was looked into; adopt it again"):
        adopt.function(config, content, out=out, log=None)
    assert list(out.iterdir()) == []


def test_neither_place_nor_others_rewards_move_an_address(config: Adopting, tmp_path: Path):
    def addresses(config: Adopting) -> list[str]:
        found = adopted(config)
        with planning(Store(tmp_path / "home")) as plan:
            rollouts = adopt(config, found.content)
            adopt_scores(config, "one", found.content_of("one"), rollouts)
        return list(plan.steps)

    elsewhere = tmp_path / "elsewhere.jsonl"
    rows = [{**row, "rewards": {"one": row["rewards"]["one"]}} for row in ROWS]
    elsewhere.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert addresses(config) == addresses(Adopting(path=str(elsewhere)))
    rows[0]["rewards"] = {"one": [1, 2]}
    elsewhere.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    mine, other = addresses(config), addresses(Adopting(path=str(elsewhere)))
    assert mine[0] == other[0]
    assert mine[1] != other[1]


def test_a_measurement_needs_no_pairs_and_ours_keep_their_addresses(config: Adopting, tmp_path: Path):
    handles = {name: Scores(f"score/{name}", tmp_path) for name in ("a", "b", "c")}
    rollouts = Rollouts("sample/d", tmp_path)
    with planning(Store(tmp_path / "home")) as plan:
        measure(Measuring(), handles["a"], handles["b"], rollouts, handles["c"])
        measure(Measuring(), handles["a"], None, rollouts, None)
    ours, theirs = plan.steps.values()
    assert ours.address == "measure/cf91de741ab3"
    assert theirs.call.identity["inputs"]["pair_scores"] is None
