"""The models that a study names: how large they are and where, without fetching anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmpipe import world
from rmpipe.algorithm import Finetuning
from rmpipe.estimate import Size
from rmpipe.stock import Model, here, size_of
from rmpipe.study import PretrainedBase, WorldBase


def test_the_size_of_a_folder_is_that_of_its_model(base: Path):
    model = world.new_model(3, hidden=32, layers=1, heads=2)
    assert size_of(base) == Size(model.num_parameters(), 32, 1, model.config.vocab_size)


def test_a_folder_that_does_not_say_has_no_size(tmp_path: Path):
    assert size_of(tmp_path) is None
    (tmp_path / "config.json").write_text('{"model_type": "strange"}')
    assert size_of(tmp_path) is None


def test_a_hub_id_whose_files_are_not_here_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = Model(PretrainedBase(path="nobody/no-such-model"))
    assert here("nobody/no-such-model") is None
    assert model.size is None
    assert model.tokenizer is None
    assert model.pace(tokens=48, trains=True) is None


def test_a_base_of_the_world_is_known_before_it_is_pretrained():
    training = Finetuning(steps=1, optimiser={"name": "adamw", "learning_rate": 1e-3})
    model = Model(WorldBase(hidden=32, layers=1, heads=2, training=training))
    size = model.size
    assert size is not None
    assert size.parameters == world.new_model(1, hidden=32, layers=1, heads=2).num_parameters()
    assert model.tokenizer("tell me")["input_ids"]
