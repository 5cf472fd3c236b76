"""What was told differently is said once, where it arises; what no address tells is said beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmpipe.ancestry import ABSENT, Ancestry, cells
from rmpipe.artifact import Artifact


@pytest.fixture
def put(tmp_path: Path):
    """Writes a record as a stage would have: `put("score/1", {"inputs": ...})`; its handle."""

    def write(address: str, **told: Any) -> Artifact:
        stage = address.split("/")[0]
        record = {"stage": stage, "version": 1, "config": {}, "inputs": {}, "title": f"{stage} · seed 1"} | told
        folder = tmp_path / "store" / address
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(record))
        return Artifact(address, tmp_path)

    return write


def lines(changes: list[Any]) -> list[tuple[Any, ...]]:
    return [(change.name, change.a, change.b, change.stages) for change in changes]


def test_a_leaf_far_up_is_said_once_and_no_address_between_is(put):
    for side, pairs in (("a", 80), ("b", 120)):
        put(f"prepare/{side}", config={"pairs": pairs, "limit": {"tokens": 9}})
        put(f"train/{side}", inputs={"preferences": f"prepare/{side}"})
        put(f"sample/{side}", inputs={"preferences": f"prepare/{side}"})
    ends = [put(f"score/{s}", inputs={"reward_model": f"train/{s}", "rollouts": f"sample/{s}"}) for s in "ab"]
    found = Ancestry.of(*ends)
    assert lines(found.told) == [("pairs", 80, 120, ["prepare"])]
    assert (found.made, found.lost) == ([], [])


def test_one_change_of_several_stages_names_them_all(put):
    for side, seed in (("a", 1), ("b", 2)):
        put(f"prepare/{side}", config={"seed": seed})
    ends = [put(f"sample/{s}", config={"seed": n}, inputs={"of": f"prepare/{s}"}) for s, n in (("a", 1), ("b", 2))]
    assert lines(Ancestry.of(*ends).told) == [("seed", 1, 2, ["sample", "prepare"])]


def test_a_section_that_one_side_lacks_and_an_input_that_one_side_lacks_are_one_change_each(put):
    put("collect/a")
    one = put("train/a", config={"optimiser": {"clip": 1}}, inputs={"on_policy": "collect/a"})
    other = put("train/b", version=2, inputs={"on_policy": None})
    assert lines(Ancestry.of(one, other).told) == [
        ("version", 1, 2, ["train"]),
        ("optimiser", {"clip": 1}, ABSENT, ["train"]),
        ("inputs.on_policy", "collect/a", ABSENT, ["train"]),
    ]


def test_inputs_of_unlike_stages_are_named_and_followed_no_further(put):
    put("train/a", title="train off · seed 1", config={"steps": 4})
    put("derive/b", title="derive truth · seed 1")
    ends = [put("score/a", inputs={"teacher": "train/a"}), put("score/b", inputs={"teacher": "derive/b"})]
    told = Ancestry.of(*ends).told
    assert lines(told) == [("inputs.teacher", "train off (train/a)", "derive truth (derive/b)", ["score"])]


def test_an_ancestor_that_is_gone_is_said_to_be(put):
    put("train/a")
    ends = [put("score/a", inputs={"teacher": "train/a"}), put("score/b", inputs={"teacher": "train/gone"})]
    found = Ancestry.of(*ends)
    assert found.told == []
    assert len(found.lost) == 1
    assert "train/gone: not in" in found.lost[0]


def test_an_ancestor_of_which_the_record_only_is_here_is_followed(put, tmp_path):
    (tmp_path / "ancestry" / "train").mkdir(parents=True)
    told = {"stage": "train", "version": 1, "config": {"steps": 9}, "inputs": {}, "title": "train"}
    (tmp_path / "ancestry" / "train" / "b.json").write_text(json.dumps(told))
    put("train/a", config={"steps": 4})
    ends = [put(f"score/{side}", inputs={"teacher": f"train/{side}"}) for side in "ab"]
    assert lines(Ancestry.of(*ends).told) == [("steps", 4, 9, ["train"])]


def test_code_packages_machine_and_bytes_are_no_part_of_what_was_told(put):
    one = put(
        "score/a", config={"x": 1}, commit="1" * 40, packages={"torch": "2.12"}, machine={"threads": 1},
        code={"rmpipe.f": "aa", "rmpipe.g": "aa", "rmpipe.only": "aa"}, read={"sample/s": "aa"},
    )  # fmt: skip
    other = put(
        "score/b", config={"x": 2}, commit="2" * 40, packages={"torch": "2.13"}, machine={"threads": 2},
        code={"rmpipe.f": "aa", "rmpipe.g": "bb"}, read={"sample/s": "bb"},
    )  # fmt: skip
    found = Ancestry.of(one, other)
    assert [change.name for change in found.told] == ["x"]
    names = ["code.rmpipe.g", "read.sample/s", "packages.torch", "machine.threads", "commit"]
    assert [change.name for change in found.made] == names


def ranked(put: Any, side: str, seeds: list[int], models: list[str], steps: int, **claim: Any) -> Artifact:
    """A ranking of one policy, each cell with a policy that was aligned in so many steps."""
    grid = [{"seed": s, "policy": "weak", "reward_model": m, "algorithm": "rloo"} for s in seeds for m in models]
    for cell in grid:
        put(f"measure/{cell['seed']}{cell['reward_model']}{side}", config={"draws": 9})
        title = f"align weak {cell['reward_model']} · seed {cell['seed']}"
        made = put(f"align/{cell['seed']}{cell['reward_model']}{side}", config={"steps": steps}, title=title)
        assert made.built
    names = [f"{cell['seed']}{cell['reward_model']}{side}" for cell in grid]
    inputs = {"measurements": [f"measure/{name}" for name in names], "policies": [f"align/{name}" for name in names]}
    claims = [{"name": "a", **claim}]
    config = {"cells": grid, "claims": claims, "about": {"study": "mine"}}
    return put(f"rank/{side}", config=config, inputs=inputs)


def test_rankings_are_followed_cell_by_cell_whatever_their_order(put):
    one = ranked(put, "a", [1, 2], ["off", "on"], 4, higher="off")
    other = ranked(put, "b", [2, 3], ["on", "off", "new"], 5, higher="on")
    told = Ancestry.of(one, other).told
    assert lines(told) == [
        ("seeds", [1, 2], [2, 3], ["rank"]),
        ("claims.a.higher", "off", "on", ["rank"]),
        ("steps", 4, 5, ["align"]),
    ]
    assert told[-1].json()["artifacts"] == ["align weak off", "align weak on"]


def test_a_ranking_knows_what_each_of_its_cells_was_made_from(put):
    found = cells(ranked(put, "a", [1, 2], ["off"], 4))
    assert list(found) == [("weak", "rloo", "off")]
    assert {seed: made["align"].address for seed, made in found["weak", "rloo", "off"].items()} == {
        1: "align/1offa",
        2: "align/2offa",
    }


def test_answers_about_sets_are_followed_by_reward_model_wherever_it_stands(put):
    def answer(name: str, steps: dict[str, int]) -> Artifact:
        trials = [{"seed": 1, "policy": "p", "reward_model": model, "base": "pretrain/b"} for model in steps]
        config = {"trials": trials, "about": {"study": "s", "places": [[1, "p"]]}, "claims": []}
        made = [put(f"evaluate/{model}{count}", config={"steps": count}).address for model, count in steps.items()]
        separated = [put(f"separate/{name}", config={"pairs": 2}).address]
        inputs = {"measurements": made, "separations": separated, "written": [None] * len(made)}
        return put(f"judge/{name}", config=config, inputs=inputs)

    found = Ancestry.of(answer("a", {"explicit": 5, "implicit": 6}), answer("b", {"implicit": 7}))
    assert lines(found.told) == [("steps", 6, 7, ["evaluate"])]


def test_answers_about_displacement_are_followed_by_policy_training_and_subset(put):
    def answer(name: str, steps: dict[str, int]) -> Artifact:
        place = {"seed": 1, "policy": "p", "base": f"pretrain/{name}"}
        treated = [place | {"training": "dpo", "subset": subset} for subset in steps]
        about = {"study": "s", "places": [place], "treatments": treated, "subsets": {"low": {"share": steps["low"]}}}
        made = [put(f"track/{subset}{count}", config={"pairs": count}).address for subset, count in steps.items()]
        inputs = {"diagnoses": [put(f"diagnose/{name}", config={"limit": 9}).address], "singles": [], "before": [],
                  "tracked": made, "after": []}  # fmt: skip
        return put(f"weigh/{name}", config={"about": about, "claims": []}, inputs=inputs)

    one, other = answer("a", {"all": 5, "low": 6}), answer("b", {"low": 7})
    assert list(cells(one)) == [("p",), ("p", "dpo", "all"), ("p", "dpo", "low")]
    assert lines(Ancestry.of(one, other).told) == [
        ("subsets.low.share", 6, 7, ["weigh"]),
        ("pairs", 6, 7, ["track"]),
    ]


def concluded(put: Any, name: str, steps: dict[str, int], **about: Any) -> Artifact:
    """An answer to `vanish` about these arms, and one experiment."""
    place = {"seed": 1, "policy": "p", "reward": "r", "base": f"pretrain/{name}"}
    told = {"study": "s", "seeds": [1], "places": [place], "trials": [place | {"arm": arm} for arm in steps],
            "controlled": [["digits", 1]]} | about  # fmt: skip
    made = [put(f"align/{name}{arm}", config={"steps": count}).address for arm, count in steps.items()]
    inputs = {
        "gauges": [put(f"gauge/{name}", config={"responses": 9}).address],
        "before": [put(f"score/{name}", config={}).address],
        "after": [put(f"score/{name}{arm}", config={}).address for arm in steps],
        "imitated": [None for _ in steps], "aligned": made, "sieves": [None for _ in steps],
        "controlled": [put(f"control/{name}", config={"modified": 0.1}).address],
    }  # fmt: skip
    return put(f"conclude/{name}", config={"about": told, "claims": []}, inputs=inputs)


def test_answers_about_vanishing_gradients_are_followed_by_policy_reward_and_arm(put):
    one, other = concluded(put, "a", {"rft": 5, "few": 6}, low=0.25), concluded(put, "b", {"few": 7}, low=0.1)
    assert list(cells(one)) == [("p", "r"), ("p", "r", "rft"), ("p", "r", "few"), ("digits",)]
    assert list(cells(one)["p", "r", "few"][1]) == ["score", "align"]
    assert lines(Ancestry.of(one, other).told) == [("low", 0.25, 0.1, ["conclude"]), ("steps", 6, 7, ["align"])]


def test_answers_about_nothing_but_controlled_experiments_differ_by_these_alone(put):
    def alone(name: str, share: float) -> Artifact:
        about = {"study": "s", "seeds": [1], "places": [], "trials": [], "controlled": [["digits", 1]]}
        inputs: dict[str, list[str]] = {
            key: [] for key in ("gauges", "before", "after", "imitated", "aligned", "sieves")
        }
        inputs["controlled"] = [put(f"control/{name}", config={"modified": share}).address]
        return put(f"conclude/{name}", config={"about": about, "claims": []}, inputs=inputs)

    assert lines(Ancestry.of(alone("a", 0.1), alone("b", 0.2)).told) == [("modified", 0.1, 0.2, ["control"])]
