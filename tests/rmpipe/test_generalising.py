"""What a study of `generalise` may say, and what is refused before anything is spent."""

from __future__ import annotations

import json
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
        (
            "claims=[{name='a', claim='c', shift='domain', alike=['explicit', 'implicit']}]",
            "claims.0.shift: the study has no set of the shift 'domain'; add one, or remove the claim",
        ),
        ("seeds=1", "seeds: expected a list such as [1], got 1"),
        (
            "shifts.x={kind='elsewhere', data={source='local', path='gone.jsonl'}}",
            "shifts.x.data.path: gone.jsonl: nothing there; give a file or a folder that is",
        ),
        (
            "shifts.x={kind='rewritten', path='./gone', instruction='paraphrase'}",
            "shifts.x.path: ",
        ),
        ("claims=[{name='a', claim='c', set='paar', alike=['explicit', 'implicit']}]", "claims.0.set: no 'paar' there"),
        ("claims=[{name='a', claim='c', set='para', higher='explict', lower='implicit'}]", "did you mean explicit?"),
        ("claims=[{name='a', claim='c', set='para', higher='explicit'}]", "a claim names higher and lower, or alike"),
        ("claims=[{name='a', claim='c', higher='explicit', lower='implicit'}]", "a claim names shift or set"),
        ("shifts.para.kind=regster", "shifts.para.kind: no kind 'regster'; did you mean register?"),
        ("shifts.para.split=policy", "shifts.para.split: Input should be 'reward' or 'test'"),
        ("shifts.x={kind='elsewhere', data={source='wrld'}}", "shifts.x.data.source: no source 'wrld'"),
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
    with pytest.raises(StudyError, match=r"shifts\.far\.data\.path: .*gone\.jsonl: nothing there"):
        read(tmp_path, text)


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
    with pytest.raises(StudyError, match=r"\(bases\.b; reward_models\.asked = false leaves it out\)$"):
        study.check_sources()


# -- texts that are longer than a base holds -------------------------------------------------------------------------

LOCAL = GOOD.replace('{ source = "world", pairs = 60,', '{ source = "local", path = "pairs.jsonl",')
ASKED = """
[reward_models.asked]
kind = "generative"
yes = " lovely"
no = " fine"
template = "{prompt} {response}"
training = { steps = 1, optimiser = { learning_rate = 0.1 } }
"""


def lay(folder: Path, name: str = "pairs.jsonl", **words: int) -> Path:
    """Short pairs, and one of each split that has so many words in its rejected response; the world holds 128."""
    rows = [(f"{split}-{n}", split, 2) for split in ("train", "test") for n in range(4)]
    rows += [(f"long-{split}", split, count) for split, count in words.items()]
    told = [
        {"id": key, "split": split, "prompt": f"tell me {key}", "chosen": " oh", "rejected": " dull" * count}
        for key, split, count in rows
    ]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in told))
    return folder / name


ALL = LOCAL.split("[[claims]]")[0].replace('base = "two"\n', "").replace("[shifts.para]", f"{ASKED}[shifts.para]")
"""With a reward model of each kind that is trained."""


@pytest.mark.parametrize("name", ["explicit", "implicit", "asked"])
def test_every_kind_refuses_a_pair_to_learn_from_that_its_base_does_not_hold(tmp_path, name):
    file = lay(tmp_path, train=129)
    others = [f"reward_models.{other}=false" for other in ("explicit", "implicit", "asked") if other != name]
    study = read(tmp_path, ALL, *others)
    with pytest.raises(StudyError) as caught:
        study.check_sources()
    who = f"reward_models.{name}"
    assert str(caught.value) == (
        f"{who}: dataset ({file}): row long-train has 134 tokens, but bases.b holds 128; leave longer pairs out by"
        f" {who}.training.max_length, at most what it holds"
    )


def test_a_pair_that_training_leaves_out_is_still_looked_at_untrained(tmp_path):
    lay(tmp_path, train=129)
    change = "reward_models.explicit.training.max_length=128", "reward_models.implicit.training.max_length=100"
    study = read(tmp_path, LOCAL, *change)
    with pytest.raises(StudyError, match=r"^separating: dataset \(.*\): row long-train has 134 tokens"):
        study.check_sources()
    (tmp_path / "pairs.jsonl").unlink()
    lay(tmp_path, train=120, test=120)
    read(tmp_path, LOCAL, *change).check_sources()


def test_a_pair_held_out_that_does_not_fit_is_refused_unless_it_is_cut(tmp_path):
    lay(tmp_path, test=129)
    with pytest.raises(
        StudyError, match=r"explicit: dataset .* row long-test .* or set reward_models\.explicit\.trunc"
    ):
        read(tmp_path, LOCAL).check_sources()
    with pytest.raises(StudyError, match=r"^reward_models\.implicit: dataset .* row long-test has 134 tokens"):
        read(tmp_path, LOCAL, "reward_models.explicit.truncate=true").check_sources()


def test_a_set_from_elsewhere_is_named_with_its_file(tmp_path):
    lay(tmp_path)
    far = lay(tmp_path, "far.jsonl", test=129)
    text = LOCAL + '[shifts.far]\nkind = "elsewhere"\ndata = { source = "local", path = "far.jsonl" }\n'
    with pytest.raises(StudyError) as caught:
        read(tmp_path, text).check_sources()
    assert f"reward_models.explicit: shifts.far ({far}): row long-test has 134 tokens" in str(caught.value)


def test_ids_that_are_one_original_s_and_numbered_another_s_are_told_before_anything_runs(tmp_path):
    rows = [{"id": key, "split": split, "prompt": f"tell me {key}", "chosen": " oh", "rejected": " dull"}
            for key, split in (("t", "train"), ("a", "test"), ("a#1", "test"))]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read(tmp_path, LOCAL).check_sources()  # every row as it is
    text = LOCAL + '[shifts.cells]\nkind = "phrasings"\n'
    with pytest.raises(StudyError, match=r"^shifts\.cells: dataset: id: 'a#1' is the id of one original, and 'a' that"):
        read(tmp_path, text).check_sources()


def test_a_rewritten_file_of_other_pairs_is_told_with_its_place_before_anything_runs(tmp_path):
    lay(tmp_path)
    other = tmp_path / "other.jsonl"
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    other.write_text("".join(json.dumps(row | {"id": f"x{row['id']}"}) + "\n" for row in rows))
    text = LOCAL + '[shifts.again]\nkind = "aligned"\ndata = { source = "local", path = "other.jsonl" }\n'
    with pytest.raises(StudyError) as caught:
        read(tmp_path, text).check_sources()
    assert str(caught.value) == (
        f"shifts.again.data.path: {other}: none of its 8 ids is among the 4 of the test split; give the file whose rows"
        " have the ids of dataset"
    )


# -- classes of one's own ---------------------------------------------------------------------------------------------

OWN = """
from typing import Literal
from rmpipe.reward import Kind
from rmpipe.shift import Shift
from rmpipe.similarity import Similarity

class Terse(Kind):
    kind: Literal["terse"] = "terse"

class Shouting(Shift):
    kind: Literal["shouting"] = "shouting"
    shift: Literal["token"] = "token"

class Alike(Similarity):
    kind: Literal["alike"] = "alike"
"""


@pytest.mark.parametrize(
    ("change", "place", "method"),
    [
        ("reward_models.terse={{kind='{}:Terse'}}", "reward_models.terse.kind: {}:Terse", "describe and no scorer"),
        ("shifts.loud={{kind='{}:Shouting'}}", "shifts.loud.kind: {}:Shouting", "pairs"),
        ("diagnosing.similarities.own={{kind='{}:Alike'}}", "diagnosing.similarities.own.kind: {}:Alike", "of"),
    ],
)
def test_a_class_that_leaves_out_what_its_family_asks_for_is_refused_when_the_study_is_read(
    tmp_path, monkeypatch, change, place, method
):
    (tmp_path / "unfinished_kinds.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StudyError) as caught:
        read(tmp_path, GOOD, change.format("unfinished_kinds"))
    told = f"{place.format('unfinished_kinds')} has no {method}; write it, as docs/extending.md shows"
    assert str(caught.value) == f"{tmp_path / 's.toml'}: {told}"


def test_of_ours_no_kind_that_a_study_can_name_lacks_anything():
    from importlib import import_module

    from rmpipe.dataset import Dataset
    from rmpipe.refusal import Judge
    from rmpipe.reinforcement import Algorithm
    from rmpipe.reward import Kind
    from rmpipe.shift import Shift
    from rmpipe.similarity import Similarity
    from rmpipe.study import Base, lacking
    from rmpipe.subset import Subset

    for family in (Algorithm, Base, Dataset, Judge, Kind, Shift, Similarity, Subset):
        for module in family.ours:
            import_module(module)
        ours = [kind for kind in family.family.values() if kind.__module__.startswith("rmpipe.")]
        assert [(kind, lacking(kind)) for kind in ours if lacking(kind)] == []
        assert len(ours) > 1
