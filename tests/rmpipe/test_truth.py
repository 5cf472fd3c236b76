"""Ground truths: found by name, and giving one number a response."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from rmpipe import truth


def test_story_adds_tone_variety_and_a_finished_sentence():
    texts = ["They were happy.", "They were sad", "the the the the", ""]
    # 0.6 x (1, -1, 0, -) + 0.8 x (1, 1, 1/4, -) + 0.2 x (1, 0, 0, -); nothing for nothing
    assert truth.story([""] * 4, texts) == pytest.approx([1.6, 0.2, 0.2, 0.0])


def test_story_takes_a_quotation_for_an_end():
    assert truth.story([""], ['"Come here!"']) == pytest.approx([1.0])


def test_tone_is_that_of_a_story_alone():
    texts = ["They were happy.", "They were sad", "Happy, sad and happy again", "the the", ""]
    assert truth.tone([""] * 5, texts) == pytest.approx([1, -1, 1 / 3, 0, 0])


def test_length_counts_words():
    assert truth.length(["a", "b"], ["one two  three", ""]).tolist() == [3, 0]


def test_world_prefers_what_the_world_made_as_chosen():
    from rmpipe.world import preferences

    rows = preferences(3, 60)
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (truth.world(prompts, [row[side] for row in rows]) for side in ("chosen", "rejected"))
    assert chosen.dtype == np.float32
    assert (chosen > rejected).mean() > (rejected > chosen).mean() + 0.3


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"no ground truth 'wrold'; did you mean world\?"):
        truth.find("wrold")


def test_a_registered_function_is_found_and_its_name_cannot_be_taken_twice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(truth, "REGISTERED", dict(truth.REGISTERED))

    @truth.ground_truth("zero")
    def zero(prompts, responses):
        return np.zeros(len(responses))

    assert truth.find("zero") is zero
    with pytest.raises(ValueError, match="'zero' is there already"):
        truth.ground_truth("zero")(lambda prompts, responses: None)


def test_a_function_of_the_users_own_is_found_and_its_fingerprint_moves_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "my_truths.py").write_text("def ones(prompts, responses):\n    return [1.0] * len(responses)\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = truth.fingerprint("my_truths:ones")
    assert truth.find("my_truths:ones")(["p"], ["r"]) == [1.0]
    (tmp_path / "my_truths.py").write_text("def ones(prompts, responses):\n    return [2.0] * len(responses)\n")
    assert truth.fingerprint("my_truths:ones") != before
    assert truth.fingerprint("story") == ""


@pytest.mark.parametrize(
    ("name", "told"),
    [("no_such_module:f", "cannot import 'no_such_module'"), ("json:nothing", "'json' has no 'nothing'")],
)
def test_what_cannot_be_imported_is_said(name: str, told: str):
    with pytest.raises(ValueError, match=told):
        truth.find(name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise AttributeError('first line\\nsecond')", "AttributeError: first line"),
        ("raise RuntimeError", "RuntimeError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def f(:", "SyntaxError: invalid syntax (failing_truths.py, line 1)"),
    ],
)
def test_whatever_a_module_raises_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
):
    (tmp_path / "failing_truths.py").write_text(f"{text}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    with pytest.raises(ValueError, match="cannot import") as caught:
        truth.find("failing_truths:f")
    assert str(caught.value) == f"cannot import 'failing_truths' ({told}); mend it"


def test_a_package_of_truths_that_cannot_be_loaded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "failing_package.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("kind", "failing_package", "rmpipe.truths")
    monkeypatch.setattr("rmpipe.config.entry_points", lambda group: [entry])
    with pytest.raises(ValueError, match=r"no ground truth 'kind'; .*\(ZeroDivisionError: division by zero\); mend"):
        truth.find("kind")
    assert truth.find("story") is truth.story
