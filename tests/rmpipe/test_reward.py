"""Kinds of reward models: how they are read, and what they do to rewards."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest

from rmpipe.config import StudyError, digest, identity
from rmpipe.explicit import Explicit
from rmpipe.reward import Kind, Scaled, scaled_prompts

TRAINING = {"steps": 3, "optimiser": {"learning_rate": 0.1}}
PROMPTS = ["p", "p", "q", "q"]
RESPONSES = ["a", "b", "c", "d"]
REWARDS = np.array([1.0, 2.0, -1.0, 0.5], dtype=np.float32)


def parse(**table):
    return Kind.parse(table, where="reward_models.off")


def given(prompts, responses):
    """A reward model whose rewards are known: a is 1, b is 2, c is -1, d is 0.5."""
    return np.array([dict(zip(RESPONSES, REWARDS, strict=True))[response] for response in responses], dtype=np.float32)


def scores(kind: Kind, folder: Path | None = None, components=(given,)) -> np.ndarray:
    return kind.scorer(folder, list(components))(PROMPTS, RESPONSES)


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"kind": "scaled", "of": "t", "factr": 1}, r"^reward_models.off.factr: unknown key; did you mean factor\?$"),
        ({"kind": "scald"}, r"^reward_models.off.kind: no kind 'scald'; did you mean scaled\?$"),
        (
            {"kind": "xyz"},
            "known: .*ensemble, explicit, generative, http, implicit, judge, .*metric, .*pretrained, refusal, scaled",
        ),
        ({"of": "t"}, "^reward_models.off.kind: missing"),
        ({"kind": "scaled"}, "^reward_models.off.of: missing"),
        ({"kind": "scaled", "of": "t", "fraction": 2}, "^reward_models.off.fraction: .*less than or equal to 1"),
        ({"kind": "truth", "function": "wrld"}, r"^reward_models.off.function: no ground truth 'wrld'; did you mean"),
        ({"kind": "ensemble", "of": ["a", "b"], "weights": [1]}, "^reward_models.off: weights: 2 numbers"),
        ({"kind": "explicit", "base": "b", "on_policy": 0.5, "training": TRAINING}, "needs on_policy_of"),
    ],
)
def test_a_fault_is_told_with_its_place_and_the_remedy(table: dict, told: str):
    with pytest.raises(StudyError, match=told):
        parse(**table)


def test_a_kind_of_a_third_party_is_found_by_its_literal():
    class Constant(Kind):
        kind: Literal["constant"] = "constant"
        constructed: ClassVar[bool] = True
        value: float = 0.0

    try:
        assert parse(kind="constant", value=2.0) == Constant(value=2.0)
    finally:
        del Kind.family["constant"]


def test_names_of_other_things_in_the_study_are_outside_identity():
    assert digest(identity(parse(kind="scaled", of="gold"))) == digest(identity(parse(kind="scaled", of="renamed")))
    mixed = {"kind": "explicit", "on_policy": 0.5, "training": TRAINING}
    one, other = parse(base="a", on_policy_of="a", **mixed), parse(base="b", on_policy_of="b", **mixed)
    assert digest(identity(one)) == digest(identity(other))
    assert digest(identity(parse(kind="scaled", of="t"))) != digest(identity(parse(kind="scaled", of="t", factor=0.2)))


def test_what_was_written_is_read_back():
    ensemble = parse(kind="ensemble", of=["a", "b"], weights=[1, 3])
    for kind in (ensemble, parse(kind="explicit", base="b", training=TRAINING)):
        assert Kind.parse(kind.model_dump(mode="json"), where="") == kind


def test_components_and_marks_are_those_of_the_kind():
    assert parse(kind="ensemble", of=["a", "b"]).components == ("a", "b")
    assert parse(kind="noisy", of="a", std=1).components == ("a",)
    explicit, truth = parse(kind="explicit", base="b", training=TRAINING), parse(kind="truth", function="length")
    assert (explicit.components, explicit.constructed) == ((), False)
    assert (truth.components, truth.constructed) == ((), True)


def test_each_kind_describes_itself_in_one_line():
    mixed = Explicit(base="small", on_policy=0.25, on_policy_of="small", training=TRAINING)  # type: ignore[arg-type]
    assert mixed.describe() == "explicit: a head on small, 3 steps on all pairs, 25% of them on-policy"
    low = parse(kind="scaled", of="gold", factor=0.001, fraction=0.5)
    assert low.describe() == "scaled: gold times 0.001 on 50% of the prompts"


def test_the_content_of_a_pretrained_model_is_its_files(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    before = parse(kind="pretrained", path=str(tmp_path)).content()
    (tmp_path / "config.json").write_text("{ }")
    assert parse(kind="pretrained", path=str(tmp_path)).content() != before
    assert parse(kind="pretrained", path="some/hub-id", revision="abc").content() == "some/hub-id@abc"


# -- rewards ----------------------------------------------------------------------------------------------------------


def test_truth_gives_what_its_function_gives():
    rewards = parse(kind="truth", function="length").scorer(None)(["p", "p"], ["a b", "a"])
    assert rewards.tolist() == [2, 1]
    assert rewards.dtype == np.float32


def test_truth_refuses_what_is_not_one_number_a_response(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = ["def grid(p, r): return [[1.0]] * len(r)", "def hole(p, r): return [1.0, float('nan')]"]
    (tmp_path / "odd_truths.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StudyError, match=r"truth odd_truths:grid: gave shape \(2, 1\) for 2 responses"):
        parse(kind="truth", function="odd_truths:grid").scorer(None)(["p", "p"], ["a", "b"])
    with pytest.raises(StudyError, match="truth odd_truths:hole: row 1 has the reward nan"):
        parse(kind="truth", function="odd_truths:hole").scorer(None)(["p", "p"], ["a", "b"])


def test_scaled_multiplies_all_rewards_when_no_share_is_named():
    assert scores(parse(kind="scaled", of="t", factor=0.5)) == pytest.approx([0.5, 1.0, -0.5, 0.25])


def test_scaled_prompts_are_drawn_as_the_paper_draws_them():
    # `should_scale_reward` of princeton-pli/what-makes-good-rm, n = 11, fraction 0.5, seed 8122
    assert np.flatnonzero(scaled_prompts(11, 0.5, 8122)).tolist() == [2, 3, 4, 6, 7]


def test_scaled_moves_only_the_drawn_prompts_of_each_split(tmp_path: Path):
    kind = parse(kind="scaled", of="t", factor=0.001, fraction=0.5)
    prompts = {"policy": [f"policy {index}" for index in range(11)], "test": [f"test {index}" for index in range(11)]}
    kind.prepare(tmp_path, prompts)
    scorer = kind.scorer(tmp_path, [lambda prompts, responses: np.ones(len(prompts), dtype=np.float32)])
    for split in prompts.values():
        rewards = scorer(split, ["r"] * 11)
        assert np.flatnonzero(rewards == np.float32(0.001)).tolist() == [2, 3, 4, 6, 7]
        assert np.flatnonzero(rewards == 1).tolist() == [0, 1, 5, 8, 9, 10]


def test_scaled_knows_a_chat_prompt_again_in_whatever_shape_a_table_gives_it_back(tmp_path: Path):
    chats = [[{"role": "user", "content": f"question {index}"}] for index in range(11)]
    kind = parse(kind="scaled", of="t", factor=0.1, fraction=0.5)
    kind.prepare(tmp_path, {"policy": chats})
    scorer = kind.scorer(tmp_path, [lambda prompts, responses: np.ones(len(prompts), dtype=np.float32)])
    again = [np.array([{"content": chat[0]["content"], "role": "user"}], dtype=object) for chat in chats]
    assert np.flatnonzero(scorer(again, ["r"] * 11) < 1).tolist() == [2, 3, 4, 6, 7]


def test_scaled_treats_the_stated_share_of_unknown_prompts_the_same_each_time(tmp_path: Path):
    kind = parse(kind="scaled", of="t", factor=0.1, fraction=0.25, seed=1)
    kind.prepare(tmp_path, {"policy": ["known"]})
    scorer = kind.scorer(tmp_path, [lambda prompts, responses: np.ones(len(prompts), dtype=np.float32)])
    unknown = [f"unknown {index}" for index in range(2000)]
    first = scorer(unknown, ["r"] * 2000) < 1
    assert first.mean() == pytest.approx(0.25, abs=0.03)
    assert (first[::-1] == (scorer(unknown[::-1], ["r"] * 2000) < 1)).all()


def test_scaled_says_that_it_was_not_prepared(tmp_path: Path):
    with pytest.raises(StudyError, match=r"scaled_prompts.json: missing; call prepare"):
        Scaled(of="t", fraction=0.5).scorer(tmp_path, [given])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("tanh", [0.76159416, 0.9640276, -0.76159416, 0.46211716]),
        ("convex", [2.7182818, 7.389056, 0.36787944, 1.6487213]),
        ("concave", [-0.36787944, -0.13533528, -2.7182818, -0.60653066]),
    ],
)
def test_squashed_keeps_the_order(shape: str, expected: list[float]):
    rewards = scores(parse(kind="squashed", of="t", shape=shape))
    assert rewards == pytest.approx(expected)
    assert np.argsort(rewards).tolist() == np.argsort(REWARDS).tolist()


def test_squashed_turns_about_its_centre():
    kind = parse(kind="squashed", of="t", strength=2.0, centre=1.0)
    assert scores(kind) == pytest.approx(np.tanh(2 * (REWARDS - 1)), abs=1e-7)


def test_a_strength_that_overflows_is_refused():
    with pytest.raises(StudyError, match="row 0 has the reward inf"):
        scores(parse(kind="squashed", of="t", strength=500.0, shape="convex"))


def test_offset_adds_one_constant_a_prompt():
    moved = scores(parse(kind="offset", of="t", std=3.0)) - REWARDS
    assert moved[0] == pytest.approx(moved[1], abs=1e-5)
    assert moved[2] == pytest.approx(moved[3], abs=1e-5)
    assert abs(moved[0] - moved[2]) > 0.01


def test_offsets_are_standard_normal_times_std_over_prompts():
    prompts = [f"prompt {index}" for index in range(4000)]
    scorer = parse(kind="offset", of="t", std=3.0).scorer(None, [lambda p, r: np.zeros(len(p), dtype=np.float32)])
    values = scorer(prompts, ["r"] * 4000)
    assert values.std() == pytest.approx(3.0, rel=0.05)
    assert values.mean() == pytest.approx(0.0, abs=0.15)
    assert np.mean(np.abs(values) < 3.0) == pytest.approx(0.6827, abs=0.03)


def test_noise_is_that_of_the_text_and_the_seed_alone():
    kind = parse(kind="noisy", of="t", std=1.0, seed=4)
    noise = scores(kind) - REWARDS
    assert len(set(noise.round(4))) == 4
    backwards = kind.scorer(None, [given])(PROMPTS[::-1], RESPONSES[::-1])[::-1] - REWARDS
    assert noise == pytest.approx(backwards, abs=1e-5)
    assert scores(parse(kind="noisy", of="t", std=1.0, seed=5)) != pytest.approx(REWARDS + noise)
    # scipy.stats.norm.ppf of the first 64 bits of SHA-256 of `[4,["p","a"]]` and so on, over 2^64
    assert noise == pytest.approx([1.0948238, -1.7709681, 0.2139910, -0.9475395], abs=1e-5)


def test_ensemble_is_the_mean_of_its_parts_or_the_weighted_mean():
    def other(prompts, responses):
        return np.array([3.0, 0.0, 1.0, 0.5], dtype=np.float32)

    assert scores(parse(kind="ensemble", of=["a", "b"]), None, (given, other)) == pytest.approx([2.0, 1.0, 0.0, 0.5])
    weighted = parse(kind="ensemble", of=["a", "b"], weights=[1, 3])
    assert scores(weighted, None, (given, other)) == pytest.approx([2.5, 0.5, 0.5, 0.5])


def test_transforms_stand_on_one_another():
    inner = parse(kind="scaled", of="t", factor=2.0).scorer(None, [given])
    assert scores(parse(kind="squashed", of="s"), None, (inner,)) == pytest.approx(np.tanh(2 * REWARDS))
