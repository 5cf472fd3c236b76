"""What a study of `generalise` may say, and what is refused before anything is spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmpipe.config import StudyError
from rmpipe.generalising import Generalising, Trial
from rmpipe.study import Study

GOOD = """
name = "s"
flow = "generalise"
seeds = [1, 2]
ground_truth = "truth"
dataset = { source = "world", pairs = 60, policy_fraction = 0 }
[bases.b]
kind = "world"
training = { steps = 1, optimiser = { learning_rate = 0.1 } }
[policies.one]
base = "b"
[policies.two]
base = "b"
[reward_models.truth]
kind = "truth"
function = "world"
[reward_models.explicit]
kind = "explicit"
training = { steps = 1, optimiser = { learning_rate = 0.1 } }
[reward_models.implicit]
kind = "implicit"
base = "two"
training = { steps = 1, optimiser = { learning_rate = 0.1 } }
[shifts.para]
kind = "register"
[[claims]]
name = "a"
claim = "c"
shift = "token"
higher = "explicit"
lower = "implicit"
"""


def read(folder: Path, text: str = GOOD, *changes: str) -> Study:
    (folder / "s.toml").write_text(text)
    return Study.read(folder / "s.toml", changes)


def test_a_reward_model_without_a_base_is_trained_from_every_policy(tmp_path):
    study = read(tmp_path)
    assert isinstance(study, Generalising)
    trials = [(trial.policy, trial.reward_model) for trial in study.trials() if trial.seed == 2]
    assert trials == [("one", "explicit"), ("two", "explicit"), ("two", "implicit")]
    assert Trial(1, "one", "explicit") in list(study.trials())
    assert list(study.sets()) == ["test", "para"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("claims=[{name='a', claim='c', shift='domain', alike=['explicit', 'implicit']}]", "no set of the shift"),
        ("claims=[{name='a', claim='c', set='paar', alike=['explicit', 'implicit']}]", "claims.0.set: no 'paar' there"),
        ("claims=[{name='a', claim='c', set='para', higher='explict', lower='implicit'}]", "did you mean explicit?"),
        ("claims=[{name='a', claim='c', set='para', higher='explicit'}]", "a claim names higher and lower, or alike"),
        ("claims=[{name='a', claim='c', higher='explicit', lower='implicit'}]", "a claim names shift or set"),
        ("shifts.para.kind=regster", "shifts.para.kind: no kind 'regster'; did you mean register?"),
        ("shifts.para.split=policy", "shifts.para.split: Input should be 'reward' or 'test'"),
        ("shifts.x={kind='elsewhere', data={source='wrld'}}", "shifts.x.data: source: no source 'wrld'"),
        ("reward_models.implicit.bata=1", "reward_models.implicit.bata: unknown key; did you mean beta?"),
        ("algorithms={}", "algorithms: unknown key"),
        ("flow=generalize", "flow: no flow 'generalize'; did you mean generalise?"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place(tmp_path, change, told):
    with pytest.raises(StudyError) as caught:
        read(tmp_path, GOOD, change)
    assert told in str(caught.value)


def test_what_is_right_needs_a_ground_truth(tmp_path):
    with pytest.raises(StudyError, match="generating: what is right is said by the ground truth"):
        read(tmp_path, GOOD, "ground_truth=", "generating.right=1")


def test_a_file_that_is_not_there_is_told_before_anything_runs(tmp_path):
    text = GOOD + '\n[shifts.far]\nkind = "elsewhere"\ndata = { source = "local", path = "./gone.jsonl" }\n'
    study = read(tmp_path, text)
    with pytest.raises(StudyError, match=r"shifts\.far: .*gone\.jsonl: nothing there"):
        study.check_sources()


def test_in_teach_a_reward_model_says_what_it_starts_from(tmp_path):
    text = GOOD.replace('flow = "generalise"', "").split("[shifts.para]")[0].replace('base = "two"\n', "")
    text += '[algorithms.rloo]\nkind = "rloo"\nsteps = 1\noptimiser = { learning_rate = 0.1 }\n'
    with pytest.raises(
        StudyError, match=r"reward_models\.explicit\.base: missing; name the policy that it starts from"
    ):
        read(tmp_path, text)


def test_an_answer_that_the_base_cannot_say_in_one_token_is_told_before_anything_runs(tmp_path):
    asked = (
        '[reward_models.asked]\nkind = "generative"\ntraining = { steps = 1, optimiser = { learning_rate = 0.1 } }\n'
    )
    study = read(tmp_path, GOOD.replace("[shifts.para]", f"{asked}[shifts.para]"))
    with pytest.raises(StudyError, match=r"reward_models\.asked\.yes: 'Yes' is not a single known token.*bases\.b"):
        study.check_sources()
