"""What a study of `vanish` may say, and what is refused before anything is spent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rmpipe.config import StudyError, digest, identity
from rmpipe.displacing import Refusing
from rmpipe.study import Sampling, Study
from rmpipe.vanishing import Trial, Vanishing

GOOD = """
name = "s"
flow = "vanish"
seeds = [1, 2]
reference = "both"
dataset = { source = "world", inputs = 60 }
[bases.b]
kind = "world"
training = { steps = 1, optimiser = { learning_rate = 0.1 } }
[policies.one]
base = "b"
[reward_models.met]
kind = "truth"
function = "met"
[reward_models.like]
kind = "metric"
name = "rougeL"
[sampling]
prompts = 10
[algorithms.rloo]
kind = "rloo"
steps = 1
optimiser = { learning_rate = 0.1 }
[finetunings.few]
share = 0.1
training = { steps = 1, optimiser = { learning_rate = 0.1 } }
[arms]
rft = { algorithm = "rloo" }
sft = { finetuning = "few" }
both = { finetuning = "few", algorithm = "rloo" }
[controlled.digits]
[[claims]]
name = "a"
claim = "c"
number = "spearman"
arm = "both"
than = "rft"
[[claims]]
name = "b"
claim = "c"
number = "correlation"
"""
ALONE = 'name = "s"\nflow = "vanish"\n'
TRAINED = 'reward_models.off={kind="explicit",base="one",training={steps=1,optimiser={learning_rate=0.1}}}'
PAIRS = 'preferences={source="world",pairs=60}'
SHOWN = ('policies.one.demonstrations={source="chosen"}',
         "policies.one.finetuning={steps=1,optimiser={learning_rate=0.1}}")  # fmt: skip

UNTOLD = (
    "finetunings.few.of: inputs are told apart by samples of them, and of those to label none is drawn; say"
    ' gauging.prompts, more than sampling.prompts, or of = "all"'
)
UNDRAWN = UNTOLD.replace("gauging.prompts, more than sampling.prompts", 'sampling.split = "policy"')


def read(folder: Path, *changes: str, text: str = GOOD) -> Vanishing:
    (folder / "s.toml").write_text(text)
    study = Study.read(folder / "s.toml", changes)
    assert isinstance(study, Vanishing)
    return study


def claimed(**keys: Any) -> str:
    """This claim and no other, as a change."""
    inside = ",".join(f"{key}={json.dumps(value)}" for key, value in ({"name": "a", "claim": "c"} | keys).items())
    return f"claims=[{{{inside}}}]"


# -- what there is ----------------------------------------------------------------------------------------------------


def test_every_arm_is_tried_at_every_place_with_every_seed(tmp_path):
    study = read(tmp_path)
    trials = list(study.trials())
    assert len(trials) == len(set(trials)) == 2 * 1 * 2 * 3
    assert Trial(2, "one", "like", "sft") in trials
    assert list(study.places()) == [(seed, "one", name) for seed in (1, 2) for name in ("met", "like")]


def test_policies_are_taught_by_all_but_the_ground_truth_unless_it_is_alone_or_named(tmp_path):
    truth = "ground_truth=met"
    assert read(tmp_path).climbed() == ("met", "like")
    assert read(tmp_path, truth).climbed() == ("like",)
    assert read(tmp_path, truth, "reward_models.like=false").climbed() == ("met",)
    assert read(tmp_path, truth, 'rewards=["met"]').climbed() == ("met",)


def test_a_study_may_ask_for_nothing_but_controlled_experiments_and_for_no_arm(tmp_path):
    alone = read(tmp_path, text=f"{ALONE}[controlled.digits]")
    assert list(alone.places()) == list(alone.trials()) == list(alone.datasets()) == []
    alone.check_sources()
    assert list(read(tmp_path, "arms={}", 'reference=""', "claims=[]").trials()) == []


def test_a_study_is_of_its_inputs_and_of_its_pairs(tmp_path):
    assert list(read(tmp_path).datasets()) == ["dataset"]
    assert list(read(tmp_path, PAIRS, TRAINED).datasets()) == ["dataset", "preferences"]


def test_prompts_held_out_are_another_address_and_a_study_that_does_not_ask_for_them_stays_where_it_was():
    assert set(identity(Sampling())) == {"prompts", "temperature", "top_k", "top_p", "max_new_tokens", "responses"}
    assert digest(Sampling(split="policy")) == digest(Sampling()) != digest(Sampling(split="test"))


def test_the_first_inputs_have_their_gain_measured_unless_those_held_out_are_sampled(tmp_path):
    assert read(tmp_path).measured() == 10
    assert read(tmp_path, 'sampling.split="test"').measured() == 0
    assert read(tmp_path, "finetunings={}", "sampling=false", 'arms={rft={algorithm="rloo"}}',
                'reference=""', "claims=[]").measured() == 0  # fmt: skip


def test_what_a_study_says_is_found_again(tmp_path):
    study = read(tmp_path, 'sampling.split="test"', "gauging.low=0.5", "arms.rft.sifted=false")
    assert (study.sampling.split, study.gauging.low, study.arms["rft"].sifted) == ("test", 0.5, False)
    assert study.finetunings["few"].of == "all"


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["arms.rft={}"], "arms.rft: an arm names a finetuning, an algorithm, or both"),
        (
            ["arms.sft.sifted=true"],
            "arms.sft: sifted: prompts are left out of what an algorithm trains on, and there is none",
        ),
        (["arms.sft.finetuning=fw"], "arms.sft.finetuning: no 'fw' there; did you mean few?"),
        (["arms.rft.algorithm=rlo"], "arms.rft.algorithm: no 'rlo' there; did you mean rloo?"),
        (["rewards=['lik']"], "rewards.0: no 'lik' there; did you mean like?"),
        (["rewards=['met','like','met']"], "rewards: met more than once; name each reward once"),
        (["rewards=[]"], "rewards: Tuple should have at least 1 item after validation, not 0, got []"),
        (["reference=bth"], "reference: no 'bth' there; did you mean both?"),
        (["seeds=[]"], "seeds: empty, so no cell is left; name one at least"),
        (["dataset=false"], "dataset: missing; add it, or ask for nothing but [controlled.NAME]"),
        (["reward_models={}"], "reward_models: missing; add it, or ask for nothing but [controlled.NAME]"),
        (["diagnosing={}"], "diagnosing: pairs are not looked at here; leave it out"),
        (["policies.one.base=c"], "policies.one.base: no 'c' there; known: b"),
        (
            [TRAINED],
            "reward_models.off: it is trained here on pairs, and the study has none; say them in [preferences]",
        ),
        (
            [PAIRS, TRAINED.replace('base="one",', "")],
            "reward_models.off.base: missing; name the policy that it starts from",
        ),
        (
            SHOWN,
            "policies.one.demonstrations: chosen responses are of pairs, and the study has none; say [preferences], or"
            " data of its own",
        ),
        (
            [PAIRS],
            "preferences: no reward model is trained on pairs, and no policy is finetuned on chosen responses; leave it"
            " out",
        ),
        (
            [PAIRS, SHOWN[0].replace("}", ',data={source="world"}}'), SHOWN[1]],
            "preferences: no reward model is trained on pairs, and no policy is finetuned on chosen responses; leave it"
            " out",
        ),
        (["sifting.low=0.5"], "sifting: no arm is sifted; say sifted = true in one of [arms], or leave it out"),
        (
            ["preferences={source='world',topics=['vault']}", TRAINED],
            "bases.b.danger: 0, so that the base has no tokens for preferences.topics = ['vault']; set danger = 0.1, or"
            " leave the topic out",
        ),
        (["sampling.split=test", "finetunings.few.of=low", "gauging.prompts=20"], UNDRAWN),
        (["finetunings.few.of=low"], UNTOLD),
        (["finetunings.few.of=high", "gauging.prompts=10"], UNTOLD),
        (
            ["sampling.split=test", "arms.rft.sifted=true"],
            'arms.rft.sifted: prompts are sifted by samples of them, and sampling.split = "test" draws none to train'
            " on; leave sifted out, or sampling.split",
        ),
        (
            ["sampling=false"],
            "finetunings.few: every input has its gain measured, so that none is left to label; say sampling.prompts,"
            ' or sampling.split = "test"',
        ),
        *(
            (
                [f"sampling.{name}={value}"],
                f"sampling.{name}: with it responses are not drawn from the policy whose gradient is taken; say {name}"
                " only beside gauging.gradients = 0, or leave it out",
            )
            for name, value in (("temperature", 0.5), ("top_k", 20), ("top_p", 0.9))
        ),
        (
            ["sampling.responses=3"],
            "sampling.responses: 3, and a gradient takes two halves of two at least; say 4 or more, or"
            " gauging.gradients = 0",
        ),
        (
            ["gauging.answers=['a','b']", "gauging.bounds=2"],
            "gauging.bounds: a bound is of free responses, and gauging.answers are all that count; leave one of them"
            " out",
        ),
        (["gauging.prompts=9"], "gauging.prompts: 9, and 10 have their gain measured; raise it, or leave it out"),
        (
            ["sampling={split='test'}", "gauging.prompts=9"],
            "gauging.prompts: 9, and all have their gain measured; raise it, or leave it out",
        ),
        (
            [PAIRS, TRAINED, "ground_truth=like"],
            "ground_truth: it compares responses with labels, and pairs have none that it could be told; name another,"
            " or take off away",
        ),
        (["dataset.source=wrld"], "dataset.source: no source 'wrld'; did you mean world?"),
        (["dataset.pairs=60"], "dataset.pairs: unknown key; known: "),
        (["finetunings.few.share=0"], "finetunings.few.share: Input should be greater than 0, got 0"),
        (["finetunings.few.of=every"], "finetunings.few.of: Input should be 'all', 'low' or 'high', got 'every'"),
        (
            ["gauging.answers=['a']"],
            "gauging.answers: all that can be answered, two at least, each once; leave it out where that is not known",
        ),
    ],
)
def test_what_cannot_be_is_said_with_its_place_and_remedy(tmp_path, changes, said):
    with pytest.raises(StudyError) as refused:
        read(tmp_path, *changes)
    assert str(refused.value).removeprefix(f"{tmp_path / 's.toml'}: ").startswith(said)


def test_what_is_refused_beside_gradients_is_not_where_none_is_taken_of_samples(tmp_path):
    warped = ("sampling.temperature=0.5", "sampling.responses=2")
    for changes in (["gauging.gradients=0"], ["gauging.answers=['a','b']"]):
        assert read(tmp_path, *warped, *changes).sampling.temperature == 0.5
    read(tmp_path, "sampling.temperature=1.0", "sampling.top_p=1.0")  # as a policy is sampled anyway
    read(tmp_path, *warped, text=f"{ALONE}[controlled.digits]")


def test_some_of_the_other_inputs_may_be_labelled_where_they_are_gauged_too(tmp_path):
    for of in ("low", "high"):
        study = read(tmp_path, f"finetunings.few.of={of}", "gauging.prompts=20")
        assert (study.finetunings["few"].of, study.gauging.prompts, study.measured()) == (of, 20, 10)
    read(tmp_path, "gauging.prompts=10")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"number": "norm", "arm": "rft"}, "norm is told before any training; leave arm and than out"),
        ({"number": "correlation", "than": "rft"}, "correlation is told before any training; leave arm and than out"),
        ({"number": "gap"}, "missing; gap is told of one"),
        ({"number": "modified", "arm": "supervised"}, "missing; modified is told of a controlled experiment"),
        (
            {"number": "gain", "arm": "supervised", "controlled": "digits"},
            "gain is not told of one; it tells modified, unmodified and gap",
        ),
        (
            {"number": "gap", "arm": "supervised", "controlled": "digits", "policy": "one"},
            "its policies and rewards are its own; leave policy and reward out",
        ),
    ],
)
def test_a_claim_is_of_one_form(tmp_path, keys, said):
    with pytest.raises(StudyError) as refused:
        read(tmp_path, claimed(**keys))
    assert str(refused.value).endswith(said)
    assert ": claims.0: " in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"number": "gain", "arm": "rf"}, "arm: no 'rf' there; did you mean rft?"),
        ({"number": "gain", "arm": "rft", "than": "st"}, "than: no 'st' there; did you mean sft?"),
        ({"number": "gain", "arm": "rft", "policy": "won"}, "policy: no 'won' there; did you mean one?"),
        ({"number": "norm", "reward": "mt"}, "reward: no 'mt' there; did you mean met?"),
        (
            {"number": "gap", "arm": "rft", "controlled": "digits"},
            "arm: no 'rft' there; known: expected_reinforce, reinforce, supervised",
        ),
        ({"number": "gap", "arm": "supervised", "controlled": "digit"}, "controlled: no 'digit' there; did you mean d"),
    ],
)
def test_a_claim_names_what_is_there(tmp_path, keys, said):
    with pytest.raises(StudyError) as refused:
        read(tmp_path, claimed(**keys))
    assert f": claims.0.{said}" in str(refused.value)


def test_a_claim_is_of_rewards_that_are_climbed_and_shares_are_of_a_reference(tmp_path):
    with pytest.raises(StudyError, match=r"claims\.0\.reward: no 'met' there"):
        read(tmp_path, "rewards=['like']", claimed(number="norm", reward="met"))
    share = claimed(number="recovered_low", arm="sft")
    read(tmp_path, share)
    with pytest.raises(StudyError, match=r"claims\.0\.number: recovered_low is a share .*; name a reference"):
        read(tmp_path, 'reference=""', share)


@pytest.mark.parametrize("number", ["norm", "gain", "low", "high", "gap"])
def test_what_has_the_units_of_a_reward_is_claimed_of_one(tmp_path, number):
    keys: dict[str, Any] = {"number": number} | ({} if number == "norm" else {"arm": "both"})
    with pytest.raises(StudyError, match=r"claims\.0\.reward: missing; rewards have units of their own, so name one"):
        read(tmp_path, claimed(**keys))
    read(tmp_path, claimed(**keys, reward="met"))
    read(tmp_path, claimed(**keys), "rewards=['like']")


@pytest.mark.parametrize("number", ["correlation", "spearman", "recovered", "recovered_low", "recovered_high"])
def test_what_has_no_units_may_be_claimed_of_all_rewards(tmp_path, number):
    keys = {"number": number} | ({} if number == "correlation" else {"arm": "sft"})
    assert read(tmp_path, claimed(**keys)).claims[0].reward is None
    read(tmp_path, claimed(number="gap", arm="supervised", controlled="digits"))


def test_two_claims_have_two_names(tmp_path):
    twice = claimed(number="correlation").replace("]", ',{name="a",claim="d",number="correlation"}]')
    with pytest.raises(StudyError, match="claims: a more than once; give each a name of its own"):
        read(tmp_path, twice)


def test_a_sieve_may_be_said_where_an_arm_is_sifted(tmp_path):
    assert read(tmp_path, "sifting.low=0.5", "arms.rft.sifted=true").sifting.low == 0.5


@pytest.mark.parametrize("number", ["recovered", "recovered_low", "recovered_high"])
def test_the_reference_has_no_share_of_itself_to_claim_and_may_be_what_another_is_set_against(tmp_path, number):
    with pytest.raises(StudyError, match=r"claims\.0\.arm: both is the reference, whose share is 1; name another"):
        read(tmp_path, claimed(number=number, arm="both"))
    read(tmp_path, claimed(number=number, arm="sft", than="both"))
    read(tmp_path, claimed(number="gain", arm="both", reward="met"))


def test_pairs_may_come_with_what_needs_them(tmp_path):
    for needing in ([TRAINED], SHOWN):
        read(tmp_path, PAIRS, *needing)
    read(tmp_path, PAIRS, TRAINED, *SHOWN).check_sources()
    read(tmp_path, SHOWN[0].replace("}", ',data={source="world"}}'), SHOWN[1])


def test_who_is_always_asked_about_prompts_held_out_is_not_told_of_a_split():
    with pytest.raises(ValidationError, match="split: prompts held out are asked here; leave it out"):
        Refusing(judge={"kind": "world"}, sampling={"split": "policy"})  # type: ignore[arg-type]
    assert Refusing(judge={"kind": "world"}, sampling={"responses": 3}).sampling.responses == 3  # type: ignore[arg-type]


# -- what is refused once files are looked into -----------------------------------------------------------------------


def lines(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


NONE = ("finetunings={}", 'arms={rft={algorithm="rloo"}}', 'reference=""', "claims=[]")
"""No finetuning, and what names none."""


def inputs(folder: Path, count: int = 20, **of_first: Any) -> str:
    """So many, the last two of them held out."""
    rows: list[dict[str, Any]] = [
        {"prompt": f"tell me of {n}", "completion": " oh", "split": "train" if n < count - 2 else "test"}
        for n in range(count)
    ]
    rows[0] |= of_first
    return f'dataset={{source="local",path="{lines(folder / "inputs.jsonl", rows)}"}}'


def test_a_step_takes_no_more_prompts_than_there_are(tmp_path):
    with pytest.raises(StudyError) as refused:
        read(tmp_path, inputs(tmp_path)).check_sources()
    told = "algorithms.rloo.prompts_per_step: 24 prompts a step, and the policy split has 18; lower it, or give more"
    assert str(refused.value).startswith(told)
    read(tmp_path, inputs(tmp_path), "algorithms.rloo.prompts_per_step=18").check_sources()
    read(tmp_path, inputs(tmp_path), 'arms={sft={finetuning="few"}}', 'reference=""', "claims=[]").check_sources()


def test_where_all_inputs_have_their_gain_measured_none_is_left_to_label(tmp_path):
    few, told = "algorithms.rloo.prompts_per_step=2", "inputs have their gain measured, so that none is left to label"
    for count in (18, 30):
        with pytest.raises(
            StudyError, match=rf"^sampling\.prompts: {count} of 18 {told}; lower it, or give more inputs"
        ):
            read(tmp_path, inputs(tmp_path), few, f"sampling.prompts={count}").check_sources()
    read(tmp_path, inputs(tmp_path), few, "sampling.prompts=17").check_sources()
    read(tmp_path, inputs(tmp_path), few, "sampling.prompts=18", 'sampling.split="test"').check_sources()
    read(tmp_path, inputs(tmp_path), few, "sampling.prompts=18", *NONE).check_sources()


def test_a_label_that_the_base_cannot_hold_is_refused_unless_nobody_learns_it(tmp_path):
    few = "algorithms.rloo.prompts_per_step=2"
    long, short = {"references": [" oh", " a" * 141], "completion": None}, {"split": "test"}
    study = read(tmp_path, inputs(tmp_path, **long), few)
    with pytest.raises(
        StudyError, match=r"^finetunings\.few: dataset \(.*\): row 1 has 1\d\d tokens, but bases\.b holds"
    ):
        study.check_sources()
    read(tmp_path, inputs(tmp_path, **long), few, "finetunings.few.training.max_length=100").check_sources()
    read(tmp_path, inputs(tmp_path, **long, **short), few).check_sources()
    read(tmp_path, inputs(tmp_path, **long), few, *NONE).check_sources()


@pytest.mark.parametrize("more", [(), NONE], ids=["finetuned", "reinforced alone"])
def test_a_prompt_that_leaves_no_room_for_what_is_drawn_is_refused(tmp_path, more):
    few = ("algorithms.rloo.prompts_per_step=2", *(more or ["finetunings.few.training.max_length=20"]))
    long = inputs(tmp_path, prompt=" a" * 100)
    with pytest.raises(StudyError) as refused:
        read(tmp_path, long, *few, "sampling.max_new_tokens=40").check_sources()
    said = re.sub(r"\(.*?\)", "(FILE)", str(refused.value))
    assert re.fullmatch(
        r"sampling\.max_new_tokens = 40: dataset \(FILE\): row 1 has 10\d tokens, but bases\.b, beside them, holds 88;"
        r" lower it, or leave longer prompts out by dataset\.max_prompt_tokens",
        said,
    )
    short = ("sampling.max_new_tokens=20", "algorithms.rloo.max_new_tokens=20")
    read(tmp_path, long, *few, *short).check_sources()
    with pytest.raises(StudyError, match=r"^algorithms\.rloo\.max_new_tokens = 40: dataset"):
        read(tmp_path, long, *few, *short[:1], "algorithms.rloo.max_new_tokens=40").check_sources()
    with pytest.raises(StudyError, match=r"bases\.b, beside them, holds 0; 20 rows are too long"):
        read(tmp_path, inputs(tmp_path), *few, "sampling.max_new_tokens=200").check_sources()


def test_a_prompt_held_out_must_leave_room_too_since_policies_are_looked_at_there(tmp_path):
    long = inputs(tmp_path, prompt=" a" * 100, split="test")
    with pytest.raises(StudyError, match=r"^sampling\.max_new_tokens = 40: dataset"):
        read(tmp_path, long, "algorithms.rloo.prompts_per_step=2", "sampling.max_new_tokens=40").check_sources()


def test_what_is_wrong_with_pairs_is_said_of_preferences(tmp_path):
    rows = [{"prompt": f"tell me {n}", "chosen": " oh", "rejected": " no" if n else " a" * 141, "split": "train"}
            for n in range(20)]  # fmt: skip
    rows += [{"prompt": "tell me of it", "chosen": " oh", "rejected": " b" * 141, "split": "test"}]
    held_out = "algorithms.rloo.prompts_per_step=2"
    local = f'preferences={{source="local",path="{lines(tmp_path / "pairs.jsonl", rows)}",policy_fraction=0}}'
    with pytest.raises(StudyError, match=r"^reward_models\.off: preferences \(.*\): row 1 has 1\d\d tokens, but bases"):
        read(tmp_path, local, TRAINED, held_out).check_sources()
    read(tmp_path, local, TRAINED, held_out, "reward_models.off.training.max_length=90").check_sources()
    lines(tmp_path / "pairs.jsonl", [{"prompt": "a", "rejected": " b"}])
    with pytest.raises(StudyError, match=r"^preferences: .*pairs\.jsonl.*chosen"):
        read(tmp_path, local, TRAINED, held_out).check_sources()


def test_a_place_that_is_not_there_is_refused_wherever_it_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"dataset\.path: none\.jsonl: nothing there; give a file or a folder"):
        read(tmp_path, 'dataset={source="local",path="none.jsonl"}')
    with pytest.raises(StudyError, match=r"preferences\.path: none\.jsonl: nothing there; give a file or a folder"):
        read(tmp_path, 'preferences={source="local",path="none.jsonl"}', TRAINED)
    local = f'controlled.digits={{data="local",path="{tmp_path / "none.npz"}"}}'
    with pytest.raises(StudyError, match=r"controlled\.digits\.path: .*none\.npz"):
        read(tmp_path, local).check_sources()
