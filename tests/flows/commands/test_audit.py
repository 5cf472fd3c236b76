"""`rmpipe audit`, and what becomes of a reward model whose scores cannot be trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PLANTED = '''
from typing import ClassVar, Literal

import numpy as np

from rmpipe.reward import Kind


class Restless(Kind):
    """Draws its head anew whenever it is loaded."""

    kind: Literal["restless"] = "restless"

    def describe(self):
        return "restless: another head each time"

    def scorer(self, folder, components=(), *, base=None, batch_tokens=8192):
        head = np.random.default_rng().normal(size=256)
        told = lambda text: sum(head[ord(letter) % 256] for letter in text)
        return lambda prompts, responses: np.array([told(text) for text in responses], "float32")
'''
CHANGED = ("--set", 'reward_models.planted={kind="planted:Restless"}', "--set", "policies.strong=false")


@pytest.fixture(scope="module")
def place(tiny: Any, places: Any) -> Any:
    """The finished study, where one more reward model is found in a module beside it."""
    made = places(tiny)
    (made.folder / "planted.py").write_text(PLANTED)
    return made


@pytest.fixture(scope="module")
def stopped(place: Any) -> Any:
    return place.rmpipe("run", "tiny.toml", *CHANGED, code=2)


def test_sound_reward_models_are_examined_from_the_records(place):
    told = json.loads(place.rmpipe("audit", "tiny.toml", "--json").output.read_text())
    assert told["failed"] == []
    assert {each["title"] for each in told["audits"]} == {f"{name} · seed 1" for name in ("truth", "offset", "off")}
    for each in told["audits"]:
        assert each["address"].startswith("audit/")
        assert each["checks"]["loading"]["verdict"] == "pass"


def test_a_run_stops_before_rlhf_on_what_fails_and_says_the_remedies(stopped, place):
    said = stopped.said()
    assert "planted fails its audit (loading): " in said
    assert "reward_models.planted = false" in said
    assert "--allow-unsound" in said
    assert not [r for r in place.records("align").values() if r["labels"].get("reward_model") == "planted"]
    assert not [r for r in place.records("rank").values() if "planted" in json.dumps(r["config"])]


def test_what_fails_is_named_with_its_checks(stopped, place):
    run = place.rmpipe("audit", "tiny.toml", *CHANGED, code=1)
    text = run.output.read_text()
    assert "1 of 4 failed: planted · seed 1" in text
    assert "fail   invariance   loading" in text
    assert "pass   invariance   order" not in text  # which --all shows


def test_it_is_ranked_where_that_is_allowed_and_said_to_be_unsound_everywhere(stopped, place):
    answer = json.loads(place.rmpipe("run", "tiny.toml", *CHANGED, "--allow-unsound", "--json").output.read_text())
    sound = {row["reward_model"]: row["sound"] for row in answer["rows"]}
    assert sound == {"truth": True, "offset": True, "off": True, "planted": False}
    assert any(text.startswith("UNSOUND † planted fails its audit") for text in answer["sentences"])
    table = place.rmpipe("rank", "tiny.toml", *CHANGED, "--allow-unsound").output.read_text()
    assert "planted †" in table
    assert "† failed its audit." in " ".join(table.split())
    (page,) = [
        file.read_text() for file in place.home.glob("store/report/*/report.html") if "planted" in file.read_text()
    ]
    assert "planted †" in page
    assert '<b class="fail">fail</b>' in page
    place.rmpipe("rank", "tiny.toml", *CHANGED, code=1)  # not allowed, so not ranked
