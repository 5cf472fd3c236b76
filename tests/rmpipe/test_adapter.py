"""Adapters: few weights are trained beside many that rest, and what is saved is one whole model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from pydantic import ValidationError  # noqa: E402

from rmpipe import adapter, world  # noqa: E402
from rmpipe.adapter import Lora  # noqa: E402
from rmpipe.algorithm import Optimiser, PairTraining  # noqa: E402
from rmpipe.config import StudyError, identity  # noqa: E402
from tests.rmpipe.conftest import check_seed_and_kill, new_log, same, train_any, weights  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

LORA = Lora(rank=2, alpha=8)
OPTIMISER = Optimiser(learning_rate=0.02)
KINDS = ("finetune", "explicit", "mean", "implicit", "generative", "rloo", "grpo")


@pytest.fixture
def base(smallest: Path) -> Path:
    return smallest


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_is_saved_whose_linear_layers_moved_by_matrices_of_low_rank(
    kind: str, base: Path, tmp_path: Path
):
    model = train_any(kind, base, tmp_path / "model", new_log(tmp_path), adapter=LORA)
    assert not list(tmp_path.glob("model/adapter*"))
    before, after = weights(base), weights(tmp_path / "model")
    changes = {name: after[name] - before[name] for name in after.keys() & before.keys()}
    moved = {name for name, change in changes.items() if change.abs().max() > 0}
    assert moved == {name for name in changes if "_proj" in name}
    assert {int(torch.linalg.matrix_rank(changes[name], tol=1e-6)) for name in moved} <= {1, 2}
    heads = after.keys() - before.keys()
    assert heads == ({"score.weight"} if kind in ("explicit", "mean") else set())
    assert all(after[name].abs().max() > 0 for name in heads)  # it began at 0
    if model is not None:
        scored = model.scorer(tmp_path, base=base)(world.prompts(0, 2), [" wow cheers", " bye"])
        assert len(set(scored.tolist())) == 2


@pytest.mark.parametrize("kind", ["explicit", "rloo"])
def test_a_seed_decides_the_weights_and_a_killed_run_ends_in_the_same(kind: str, base: Path, tmp_path: Path):
    check_seed_and_kill(partial(train_any, kind, base, steps=4, adapter=Lora(rank=2, dropout=0.1)), tmp_path)


def test_weights_are_kept_on_the_way_as_if_it_had_ended_there(base: Path, tmp_path: Path):
    told: dict[str, Any] = {"steps": 2, "adapter": LORA}
    for name, more in (("whole", {"looks": 2}), ("half", {"steps": 1}), ("blind", {})):
        train_any("explicit", base, tmp_path / name / "model", new_log(tmp_path, f"{name} scratch"), **told | more)
    assert same(tmp_path / "whole" / "looks" / "000001" / "model", tmp_path / "half" / "model")
    assert same(tmp_path / "whole" / "model", tmp_path / "blind" / "model")
    assert not same(tmp_path / "half" / "model", tmp_path / "blind" / "model")


def test_the_reference_of_rlhf_is_the_policy_without_the_adapter(base: Path, tmp_path: Path):
    log = new_log(tmp_path)
    train_any("rloo", base, tmp_path / "model", log, adapter=LORA)
    first, second = (values["kl"] for _, values in log.points if "kl" in values)
    assert first == 0 != second


def test_only_the_layers_that_are_named_are_adapted(base: Path, tmp_path: Path):
    train_any("finetune", base, tmp_path / "model", new_log(tmp_path), adapter=Lora(rank=2, targets=("q_proj",)))
    before, after = weights(base), weights(tmp_path / "model")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"model.layers.0.self_attn.q_proj.weight"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"targets": ()}, "empty, so nothing is adapted; name a layer"),
        ({"targets": ("q_proj", "lm_head")}, "lm_head cannot be adapted; leave it out"),
    ],
)
def test_layers_that_cannot_be_adapted_are_refused(wrong: dict[str, Any], told: str):
    with pytest.raises(ValidationError, match=told):
        Lora(**wrong)


def test_hidden_representations_that_are_kept_take_no_adapter():
    with pytest.raises(ValidationError, match="fixed with an adapter, which moves the hidden representations; leave"):
        PairTraining(steps=1, optimiser=OPTIMISER, fixed=True, adapter=LORA)


def test_without_peft_an_adapter_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adapter, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"^training.adapter: peft is not installed; pip install 'rmpipe\[peft\]'"):
        adapter.adapted(LORA, "CAUSAL_LM")
    assert adapter.adapted(None, "CAUSAL_LM") == {}


def test_an_adapter_is_part_of_the_address_and_none_is_not():
    plain = PairTraining(steps=1, optimiser=OPTIMISER)
    assert "adapter" not in identity(plain)
    found = identity(plain.model_copy(update={"adapter": LORA}))["adapter"]
    assert found == {"rank": 2, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear"}
