"""Language models that judge in writing: what they are asked, how their answers are read, and what is not a number."""

from __future__ import annotations

import math
import shutil

import pytest

from rmpipe.asked import PARSERS, number, rating, yes_no
from rmpipe.config import StudyError, digest, identity
from rmpipe.drawing import Sampled
from rmpipe.reward import Kind

PROMPTS = ["tell me of", [{"role": "user", "content": "hello"}], "tell me of", "c"]
RESPONSES = [" the kettle", "two {prompt}", " the kettle", "d"]


def parse(base, **table):
    told = {"kind": "judge", "path": str(base), "template": "{prompt}|{response}", **table}
    return Kind.parse(told, "reward_models.judge")


@pytest.fixture
def says(monkeypatch):
    """Lets the model answer as told, and remembers what it was asked."""
    asked = []

    def say(*answers: str) -> list:
        def sample(model, prompts, **told):
            asked.extend([prompts, told])
            return [Sampled([answer], [1], [True], [0.0], [[0]]) for answer in answers]

        monkeypatch.setattr("rmpipe.policy.sample", sample)
        return asked

    return say


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parser", "answers"),
    [
        (rating, {"Rating: [[7]]": 7, "[[2]] no, [[ 3.5 ]]": 3.5, "7": None, "[[x]]": None, "[[-1]]": -1}),
        (number, {"7": 7, "first 3, then -2.5.": -2.5, "7/10": 7, "8 out of 10": 8, "7 / 10": 7, "1e-2": 0.01,
                  "x7": None, "none": None, "A. 7.": 7, "the 10th": None}),
        (yes_no, {"Yes.": 1, "no, yes": 0, "Well, YES": 1, "nothing": None, "": None, "yesterday": None}),
    ],
)  # fmt: skip
def test_answers_are_read_by_the_parser_that_is_named(parser, answers):
    assert {answer: parser(answer) for answer in answers} == answers


def test_a_parser_of_one_s_own_reads_and_counts_by_its_file(base, tmp_path, monkeypatch, says):
    file = tmp_path / "own_parser.py"
    file.write_text("def grade(answer):\n    return {'A': 3, 'B': 2.5}.get(answer)\n")
    monkeypatch.syspath_prepend(tmp_path)
    kind = parse(base, parser="own_parser:grade")
    says("A", "B", "E")
    assert kind.scorer(None)(PROMPTS, RESPONSES).tolist() == pytest.approx([3, 2.5, 3, math.nan], nan_ok=True)
    before = kind.content()
    file.write_text(file.read_text() + "\n")
    assert kind.content() != before


@pytest.mark.parametrize(
    ("code", "told"), [("return float('inf')", "reads inf from"), ("raise KeyError(answer)", "cannot read")]
)
def test_a_parser_that_fails_is_named_with_the_answer_and_the_row(base, tmp_path, monkeypatch, says, code, told):
    name = f"faulty_{len(code)}"
    (tmp_path / f"{name}.py").write_text(f"def grade(answer):\n    if answer == 'B':\n        {code}\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    says("A", "B", "C")
    with pytest.raises(StudyError, match=rf"^parser: {name}:grade {told}.*'B' of row 1"):
        parse(base, parser=f"{name}:grade").scorer(None)(PROMPTS, RESPONSES)


@pytest.mark.parametrize(("name", "told"), [("ratng", "did you mean rating"), ("none_such:grade", "cannot import")])
def test_a_parser_that_is_not_there_is_refused_when_the_study_is_read(name, told):
    with pytest.raises(StudyError, match=rf"^reward_models.judge.parser: .*{told}"):
        parse("some/judge", parser=name)


# -- asking -----------------------------------------------------------------------------------------------------------


def test_equal_texts_are_asked_once_and_what_cannot_be_read_is_counted(base, says):
    asked = says("[[7]]", "I like it", "[[1]]")
    scorer = parse(base).scorer(None)
    assert scorer(PROMPTS, RESPONSES).tolist() == pytest.approx([7, math.nan, 7, 1], nan_ok=True)
    assert asked[0] == ["tell me of| the kettle", "user: hello|two {prompt}", "c|d"]
    assert (asked[1]["samples"], asked[1]["temperature"]) == (1, 0)
    assert scorer.unparsed == 1
    says("hm", "hm", "[[1]]")
    scorer(PROMPTS, RESPONSES)
    assert scorer.unparsed == 4  # since it was made, each text for itself


def test_what_cannot_be_read_has_the_reward_that_the_study_says(base, says):
    says("[[7]]", "I like it", "[[1]]")
    scorer = parse(base, unparsed=-1).scorer(None)
    assert scorer(PROMPTS, RESPONSES).tolist() == [7, -1, 7, 1]
    assert scorer.unparsed == 1


def test_a_language_model_answers_by_its_likeliest_tokens(base, monkeypatch):
    from rmpipe import policy

    heard = []
    monkeypatch.setitem(PARSERS, "number", heard.append)
    kind = parse(base, template="{prompt}{response}", max_new_tokens=3, parser="number")
    kind.scorer(None)(["tell me of"], [" the kettle"])
    drawn = policy.sample(
        policy.load(base), ["tell me of the kettle"], samples=1, max_new_tokens=3, seed=9, temperature=0
    )
    assert heard == [drawn[0].responses[0].strip()]


def test_no_texts_are_asked_of_nobody(base):
    assert parse(base).scorer(None)([], []).shape == (0,)


# -- the study --------------------------------------------------------------------------------------------------------


def test_a_judge_counts_by_its_content_and_its_folder_is_looked_into(base, tmp_path):
    there = shutil.copytree(base, tmp_path / "there")
    one, same = parse(base), parse(there)
    assert digest(identity(one)) == digest(identity(same))
    assert one.content() == same.content()
    same.check()
    assert Kind.parse(one.dump(), "") == one
    for other in ({"batch_size": 2}, {"dtype": "bfloat16"}):  # both may change what it answers
        assert digest(identity(one)) != digest(identity(parse(base, **other)))
    (there / "model.safetensors").unlink()
    with pytest.raises(StudyError, match=r"^path: .*weights as safetensors missing"):
        same.check()


def test_the_question_and_the_answer_must_both_fit(base):
    kind = parse(base, max_new_tokens=20)
    tokenizer = kind.tokenizer()
    assert kind.context() == 128
    assert kind.tokens(tokenizer, "the", "kettle is") == len(tokenizer("the|kettle is")["input_ids"]) + 20
