"""What a plan costs: arithmetic on counts and paces, and the probe that measures a pace."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rmpipe import world
from rmpipe.algorithm import Training
from rmpipe.estimate import STAGE, START, TRAINER, Pace, Size, Use, Work, cost, laid_out, line, probe, seconds

PACE = Pace(read=(0.1, 0.001), drawn=(0.2, 0.002), trained=(0.5, 0.01))
SIZE = Size(parameters=1_000_000, hidden=64, layers=2, vocabulary=1000)


def training(**told: Any) -> Any:
    return Training(steps=1, optimiser={"name": told.pop("name", "adamw"), "learning_rate": 1e-3}, **told)


def test_a_use_takes_its_passes_and_its_tokens():
    assert PACE.seconds(Use("one", "read", 10, 1000)) == pytest.approx(2.0)
    assert PACE.seconds(Use("one", "drawn", 10, 1000)) == pytest.approx(4.0)
    assert PACE.seconds(Use("one", "trained", 10, 1000)) == pytest.approx(15.0)


def test_two_timings_give_back_the_line_that_they_lie_on():
    assert line(100, 0.3 + 100 * 0.002, 800, 0.3 + 800 * 0.002) == pytest.approx((0.3, 0.002))


def test_a_batch_that_is_no_slower_than_a_small_one_costs_by_passes_alone():
    assert line(100, 0.3, 800, 0.29) == (0.29, 0.0)


def test_a_pass_never_costs_less_than_nothing():
    each, token = line(100, 0.1, 800, 1.6)
    assert each == 0
    assert token == pytest.approx(1.6 / 800)


def test_a_stage_has_a_cost_of_its_own_beside_its_models():
    work = Work("train", uses=(Use("one", "trained", 2, 100),), trainers=1)
    assert seconds(Work("rank"), {}) == STAGE
    assert seconds(work, {"one": PACE}) == pytest.approx(STAGE + TRAINER + 2.0)


def test_what_is_unknown_is_unknown_and_not_nothing():
    works = {
        "sample/a": Work("sample", uses=(Use("of the hub", "drawn", 1, 1),)),
        "shift/b": Work("shift", unknown="a model rewrites its pairs"),
        "rank/c": Work("rank"),
    }
    told = cost(works, {}, {}, jobs=1)
    assert told.seconds == {"sample/a": None, "shift/b": None, "rank/c": STAGE}
    assert set(told.unknown) == {"sample/a", "shift/b"}
    assert told.unknown["shift/b"] == "a model rewrites its pairs"
    assert told.total == START + STAGE


def test_nothing_to_run_takes_no_time():
    assert cost({}, {}, {}, jobs=2).total == 0


def test_stages_that_need_each_other_wait_and_others_run_side_by_side():
    lasting = {"base": 10.0, "one": 5.0, "two": 5.0, "three": 5.0, "rank": 1.0}
    needs = {"one": ["base"], "two": ["base"], "three": ["base", "made/before"], "rank": ["one", "two", "three"]}
    holding = {"base": 1.0, "one": 3.0, "two": 4.0, "three": 2.0, "rank": 0.0}
    assert laid_out(lasting, holding, needs, 1) == (26.0, 4.0)
    assert laid_out(lasting, holding, needs, 2) == (21.0, 7.0)
    assert laid_out(lasting, holding, needs, 8) == (16.0, 9.0)


def test_an_optimiser_holds_what_it_keeps_of_each_weight():
    adamw, sgd = (SIZE.trained(0, training(name=name)) for name in ("adamw", "sgd"))
    assert adamw == 16e6  # weights, gradients and two moments, four bytes each
    assert sgd == 8e6


@pytest.mark.parametrize("less", [{"precision": "bfloat16"}, {"adapter": {"rank": 4}}, {"checkpointing": True}])
def test_what_saves_memory_is_told_to(less: dict[str, Any]):
    told = {"optimiser": SimpleNamespace(name="adamw"), "precision": "float32", "adapter": None, "checkpointing": False}
    plain = SimpleNamespace(**told)
    thrifty = SimpleNamespace(**(told | {name: SimpleNamespace(**value) if isinstance(value, dict) else value
                                         for name, value in less.items()}))  # fmt: skip
    assert SIZE.trained(1000, thrifty) < 0.9 * SIZE.trained(1000, plain)


@pytest.mark.usefixtures("one_thread")
def test_the_probe_finds_a_larger_model_slower_and_training_slower_than_reading():
    told = {width: probe(world.new_model(1, hidden=width, layers=1, heads=2)) for width in (16, 128)}
    small, large = (pace.seconds(Use("", "read", 1, 1000)) for pace in told.values())
    assert 0 < small < large
    for how in ("read", "drawn", "trained"):
        assert told[128].seconds(Use("", how, 1, 1000)) > 0
    assert told[128].seconds(Use("", "trained", 1, 1000)) > large


def test_the_probe_leaves_drawing_and_training_out_where_they_are_not_asked_for():
    told = probe(world.new_model(1, hidden=16, layers=1, heads=2), trains=False, draws=False)
    assert told.drawn == told.read
    assert told.trained == pytest.approx([3 * value for value in told.read])
