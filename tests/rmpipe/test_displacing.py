"""What a study of `displace` may say, and what is refused before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmpipe.config import StudyError
from rmpipe.displacing import Displacing, Treatment
from rmpipe.study import Study

GOOD = """
name = "s"
flow = "displace"
seeds = [1, 2]
dataset = { source = "world", pairs = 60, policy_fraction = 0 }
single = { pairs = 4, steps = 1, optimiser = { learning_rate = 0.1 } }
[bases.b]
kind = "world"
training = { steps = 1, optimiser = { learning_rate = 0.1 } }
[policies.one]
base = "b"
[trainings.dpo]
training = { steps = 1, batch_size = 4, optimiser = { learning_rate = 0.1 } }
[trainings.ipo]
loss = "ipo"
training = { steps = 1, batch_size = 8, optimiser = { learning_rate = 0.1 } }
[subsets.random]
kind = "random"
count = 8
[subsets.low]
kind = "lowest"
by = "ches"
count = 8
[[claims]]
name = "a"
claim = "c"
similarity = "ches"
test = "given_length"
than = "edit"
[[claims]]
name = "b"
claim = "c"
higher = "low"
lower = "random"
"""


def read(folder: Path, *changes: str, text: str = GOOD) -> Displacing:
    (folder / "s.toml").write_text(text)
    study = Study.read(folder / "s.toml", changes)
    assert isinstance(study, Displacing)
    return study


def test_pairs_that_a_policy_cannot_read_are_refused_unless_it_is_to_write_them(tmp_path):
    rows = [{"id": str(n), "split": split, "prompt": f"tell me {n}", "chosen": " oh", "rejected": " a" * words}
            for n, (split, words) in enumerate([("train", 141), *[("train", 1)] * 15, *[("test", 1)] * 3])]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    local = f'dataset={{source="local",path="{tmp_path}/pairs.jsonl",policy_fraction=0}}'
    with pytest.raises(StudyError, match=r"^diagnosing: dataset \(.*\): row 0 has \d+ tokens, but bases\.b holds"):
        read(tmp_path, local).check_sources()
    truth = ['ground_truth="t"', 'reward_models.t={kind="truth",function="world"}']
    read(tmp_path, local, "on_policy=true", *truth).check_sources()


def test_a_judge_that_cannot_read_what_is_drawn_is_refused_wherever_it_is_named(tmp_path, base):
    judge = f'{{kind="generative",path="{base}",max_new_tokens=90}}'
    read(tmp_path, f"refusing={{judge={judge}}}", "refusing.sampling.max_new_tokens=1").check_sources()
    with pytest.raises(StudyError, match=r"^refusing\.judge\.path: .* as many as 64 are drawn; lower max_new_tokens"):
        read(tmp_path, f"refusing={{judge={judge}}}").check_sources()
    labels = ['ground_truth="t"', f'reward_models.t={{kind="refusal",judge={judge}}}']
    with pytest.raises(StudyError, match=r"^reward_models\.t\.judge\.path: .* as many as 64 are drawn"):
        read(tmp_path, *labels).check_sources()
    with pytest.raises(StudyError, match=r"^reward_models\.t\.judge\.path: .*no such folder"):
        read(tmp_path, *labels, f"reward_models.t.judge.path={tmp_path / 'none'}").check_sources()
    read(tmp_path, *labels, "collecting.max_new_tokens=1").check_sources()


def test_every_training_is_run_on_every_subset_with_every_seed(tmp_path):
    treatments = list(read(tmp_path).treatments())
    assert len(treatments) == len(set(treatments)) == 2 * 2 * 2
    assert Treatment(2, "one", "ipo", "low") in treatments


def test_a_subset_is_trained_on_by_the_trainings_that_it_names(tmp_path):
    study = read(tmp_path, 'subsets.low.trainings=["ipo"]')
    asked = {(each.training, each.subset) for each in study.treatments()}
    assert asked == {("dpo", "random"), ("ipo", "random"), ("ipo", "low")}


def test_quantiles_are_read_as_a_subset_each_in_their_place(tmp_path):
    ladder = 'subsets.ches={kind="quantile",at=[0,0.25,1],count=8}'
    last = 'subsets.gold={kind="other",data={source="world"}}'
    study = read(tmp_path, ladder, last)
    assert list(study.subsets) == ["random", "low", "ches_0", "ches_25", "ches_100", "gold"]
    with pytest.raises(StudyError, match=r"subsets: ches_25 more than once, .*; call it otherwise"):
        read(tmp_path, ladder, 'subsets.ches_25={kind="whole"}')


def test_no_reward_model_is_needed_and_a_study_may_but_diagnose(tmp_path):
    study = read(tmp_path, "subsets={}", "trainings={}", "claims=[]")
    assert list(study.treatments()) == []
    assert not study.reward_models


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("subsets.low.by=chess", r"subsets\.low\.by: no 'chess' there; did you mean ches\?"),
        ("subsets={}", r"subsets: none, .* say \[subsets\.all\]"),
        ("trainings={}", "trainings: none, .* add one, or leave subsets out"),
        (
            "diagnosing.limit=7",
            r"subsets\.random\.count: 8, but no more than 7 pairs are diagnosed; lower it, or raise",
        ),
        ("diagnosing.split=test", r"subsets\.random: pairs of the test split are diagnosed.*leave diagnosing\.split"),
        ("diagnosing.similarities.mine.kind=edut", "mine.kind: no kind 'edut'; did you mean edit"),
        ("on_policy=true", "on_policy: .* the study has none; name a ground_truth"),
        ('subsets.low.trainings=["dppo"]', r"subsets\.low\.trainings: no 'dppo' there; did you mean dpo\?"),
        ("subsets.low.count=7", r"subsets\.low: 7 pairs, but a training on it takes 8 a step; give it more, or lower"),
        (
            'subsets={all={kind="whole",trainings=["ipo"]}}',
            r"trainings\.dpo: no subset .* add it there, or leave it out",
        ),
        ("trainings.dpo.losss=ipo", r"trainings\.dpo\.losss: unknown key; did you mean loss"),
        ("subsets.low.kind=lowst", r"subsets\.low\.kind: no kind 'lowst'; did you mean lowest"),
        ('refusing={judge={kind="wrld"}}', "refusing.judge.kind: no kind 'wrld'; did you mean world"),
        (
            'subsets.gold={kind="other",data={source="world",topics=["vault"]}}',
            r"bases\.b\.danger: .* subsets\.gold\.data",
        ),
    ],
)
def test_what_cannot_be_is_said_with_its_place_and_remedy(tmp_path, change, said):
    with pytest.raises(StudyError, match=said):
        read(tmp_path, change)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('similarity = "chess"', r"claims\.2\.similarity: no 'chess'"),
        ('similarity = "ches"\nthan = "hiden"', r"claims\.2\.than: no 'hiden' there; did you mean hidden"),
        ('similarity = "ches"\npolicy = "two"', r"claims\.2\.policy: no 'two'"),
        ('higher = "low"\nlower = "all"', r"claims\.2\.lower: no 'all'"),
        ('higher = "low"\nlower = "random"\ntraining = "ppo"', r"claims\.2\.training: no 'ppo'"),
        ('similarity = "ches"\nnumber = "held_out"', "number: said of subsets; .* leave it out"),
        ('higher = "low"', "two subsets as higher and lower"),
        ('similarity = "ches"\nhigher = "low"\nlower = "random"', "names a similarity, or two subsets"),
        ('higher = "low"\nlower = "random"\ntest = "equal_length"', "test: said of a similarity; leave it out"),
        ('similarity = "ches"\ntraining = "dpo"', "training: said of subsets; pairs are trained on alone"),
        ('similarity = "length"\ntest = "given_length"', "takes out the very length that is asked about"),
        ('similarity = "ches"\nthan = "length"\ntest = "equal_length"', "takes out the very length"),
    ],
)
def test_a_claim_on_what_is_not_there_or_of_no_form_is_refused(tmp_path, line, said):
    with pytest.raises(StudyError, match=said):
        read(tmp_path, text=f'{GOOD}[[claims]]\nname = "c"\nclaim = "c"\n{line}\n')


def test_subsets_are_compared_after_one_training_or_each_after_the_only_one_it_has(tmp_path):
    alone = ['subsets.low.trainings=["ipo"]', 'subsets.random.trainings=["dpo"]']
    read(tmp_path, *alone)
    read(tmp_path, *alone, text=f'{GOOD}training = "ipo"\n')
    text = f"{GOOD}[trainings.sft]\ntraining = {{ steps = 1, batch_size = 4, optimiser = {{ learning_rate = 0.1 }} }}\n"
    several = ['subsets.low.trainings=["ipo"]', 'subsets.random.trainings=["dpo", "sft"]']
    with pytest.raises(StudyError, match=r"claims\.1\.training: low and random have no .* several; name one"):
        read(tmp_path, *several, text=text)
    with pytest.raises(StudyError, match=r"claims\.1\.training: sft is of neither low nor random"):
        read(
            tmp_path,
            *alone,
            "subsets.all={kind='whole'}",
            text=text.replace('[[claims]]\nname = "b"', '[[claims]]\nname = "b"\ntraining = "sft"'),
        )


def test_refusals_are_not_claimed_of_where_nobody_tells_them(tmp_path):
    with pytest.raises(StudyError, match=r"claims\.1\.number: refusals are told by a judge.*; add \[refusing\]"):
        read(tmp_path, text=f'{GOOD}number = "refusal"\n')


def test_a_similarity_is_not_claimed_of_without_training_on_single_pairs(tmp_path):
    with pytest.raises(StudyError, match=r"claims\.0\.similarity: .* add \[single\]"):
        read(tmp_path, text=GOOD.replace("single =", "# single ="))


def test_no_training_has_the_name_of_training_on_single_pairs(tmp_path):
    with pytest.raises(StudyError, match=r"trainings\.alone: .*call it otherwise"):
        read(tmp_path, text=GOOD.replace("trainings.ipo", "trainings.alone"))


# -- what is looked into before anything is spent ---------------------------------------------------------------------


def test_a_subset_of_more_pairs_than_the_data_have_is_refused_at_once(tmp_path):
    with pytest.raises(StudyError, match=r"subsets\.low\.count: 800, but there are \d\d pairs to train on; lower it"):
        read(tmp_path, "subsets.low.count=800").check_sources()
    read(tmp_path).check_sources()


@pytest.mark.parametrize(
    "change",
    ["subsets.few={kind='random',share=0.1}", "subsets.few={kind='other',data={source='world',pairs=12}}",
     "trainings.dpo.training.batch_size=100"],
)  # fmt: skip
def test_a_subset_of_fewer_pairs_than_a_step_takes_is_refused_at_once(tmp_path, change):
    whole = "subsets.whole={kind='whole'}"
    counts = ("subsets.low={kind='lowest',share=1}", "subsets.random={kind='random',share=1}")
    with pytest.raises(StudyError, match=r"subsets\.\w+: \d+ pairs, but a training on it takes \d+ a step; give it"):
        read(tmp_path, whole, *counts, change).check_sources()
    read(tmp_path, whole, *counts).check_sources()


def test_how_many_pairs_are_of_equal_length_is_not_guessed(tmp_path):
    read(tmp_path, "subsets.few={kind='random',share=0.5,equal_length=0}").check_sources()


def test_the_pairs_of_another_data_set_are_looked_into(tmp_path):
    gold = 'subsets.gold={kind="other",data={source="local",path="gold.jsonl"}}'
    with pytest.raises(StudyError, match=r"subsets\.gold\.data"):
        read(tmp_path, gold).check_sources()


def test_a_pair_that_no_policy_holds_is_refused_before_it_is_diagnosed(tmp_path):
    context = read(tmp_path).bases["b"].context()
    words = " the kettle" * int(context or 0)
    rows = [{"id": f"n{n}", "prompt": f"tell {n}", "chosen": " fine" * (n + 1), "rejected": " the"} for n in range(12)]
    rows[4]["rejected"] = words
    (tmp_path / "gold.jsonl").write_text("\n".join(map(json.dumps, rows)))
    gold = f'subsets.gold={{kind="other",data={{source="local",path="{tmp_path / "gold.jsonl"}",policy_fraction=0}}}}'
    with pytest.raises(StudyError, match=r"trainings: subsets\.gold\.data .*row n4 has \d+ tokens, but bases\.b holds"):
        read(tmp_path, gold).check_sources()
