"""Modified inputs: whose label becomes which, and files of somebody's own, read or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from rmpipe import modification
from rmpipe.config import StudyError
from rmpipe.controlled import Controlled, Rewards
from rmpipe.modification import Inputs, draw_inputs

SEED = 100
NUMBERED = np.arange(40.0).reshape(40, 1)
FEW = ["red", "green", "blue", "grey"] * 10


def drawn(seed: int = SEED, **told: Any) -> Inputs:
    return draw_inputs(Controlled(**told), seed)


def written(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


# -- whose label becomes which ----------------------------------------------------------------------------------------


def test_modified_labels_lie_outside_of_pretraining_and_the_others_are_true():
    found = drawn()
    assert found.first.shape == (500, 3)
    assert found.modified.sum() == 50
    assert all(len(set(row)) == 3 for row in found.first.tolist())
    seen = (found.first == found.labels[:, None]).any(1)
    assert (seen == ~found.modified).all()
    assert (found.labels == found.first[:, 0])[~found.modified].all()


def test_modified_labels_are_any_of_those_outside():
    found = drawn(modified=0.9)
    places = (found.labels - found.first[:, 0])[found.modified] % 10
    assert set(places.tolist()) == set(range(1, 10))


def test_a_control_changes_labels_to_others_of_pretraining():
    plain, inside = drawn(), drawn(modified_to="inside")
    none_true = drawn(unmodified_to="inside")
    assert (inside.labels == inside.first[:, 1])[inside.modified].all()
    assert (none_true.labels == none_true.first[:, 1])[~none_true.modified].all()
    assert (none_true.labels == plain.labels)[plain.modified].all()
    for control in (inside, none_true):  # of the same inputs
        assert (control.features == plain.features).all()
        assert (control.modified == plain.modified).all()


def test_a_larger_share_has_the_smaller_one_within_it():
    few, many = drawn(modified=0.1), drawn(modified=0.3)
    assert many.modified[few.modified].all()
    assert (many.labels == few.labels)[few.modified].all()


def test_a_seed_decides_everything():
    same, other = drawn(), drawn(seed=SEED + 1)
    for name in Inputs.__dataclass_fields__:
        assert (getattr(drawn(), name) == getattr(same, name)).all()
    assert not (other.features == same.features).all()
    assert (other.modified != same.modified).any()


def test_rewards_are_right_at_the_label_and_wrong_elsewhere():
    found = drawn(rewards={"right": 2.0, "wrong": -1.0, "wrong_modified": 0.5})
    assert (found.rewards.gather(1, found.labels[:, None]) == 2).all()
    assert (found.rewards[~found.modified].sum(1) == 2 - 9).all()
    assert (found.rewards[found.modified].sum(1) == 2 + 9 * 0.5).all()
    assert (found.test_rewards.sum(1) == 2 - 9).all()  # no input that is held out is modified
    assert Rewards().of(np.array([1]), np.array([True]), 3).tolist() == [[-1, 1, -1]]


# -- what is read -----------------------------------------------------------------------------------------------------


def test_the_digits_are_as_many_as_is_said():
    from sklearn.datasets import load_digits

    features, labels = load_digits(return_X_y=True)
    assert (len(features), len(set(labels))) == modification.DIGITS
    found = drawn()
    assert (found.features.min(), found.features.max()) == (0, 1)
    assert len(found.test_labels) == 1797 - 500


def test_a_file_is_read_scaled_flattened_and_split_without_overlap(tmp_path: Path):
    images = np.repeat(NUMBERED - 10, 6, axis=1).reshape(40, 2, 3)
    file = written(tmp_path, features=images, labels=np.array(FEW))
    told = {"data": "local", "path": str(file), "labels_per_input": 2}
    found = drawn(**told, train=30, test=None)
    assert (found.features.shape, found.test_features.shape) == ((30, 6), (10, 6))
    numbers = [round(float(row[0]) * 39) for row in (*found.features, *found.test_features)]
    assert sorted(numbers) == list(range(40))
    names = sorted(set(FEW))
    assert [names[label] for label in found.first[:, 0]] == [FEW[number] for number in numbers[:30]]
    assert len(drawn(**told, train=None, test=4).features) == 36
    assert len(drawn(**told, train=20, test=4).test_features) == 4


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"features": NUMBERED}, r"KeyError: 'labels is not a file in the archive'"),
        ({"features": NUMBERED, "labels": np.array([{}] * 40, dtype=object)}, r"allow_pickle=False"),
        ({"features": np.array([["a"]] * 40), "labels": FEW}, r"could not convert string to float"),
        ({"features": NUMBERED[:39], "labels": FEW}, r"has features \(39, 1\) and labels \(40,\)"),
        ({"features": NUMBERED[:, 0], "labels": FEW}, r"has features \(40,\) and labels \(40,\)"),
        ({"features": np.where(NUMBERED == 3, np.nan, NUMBERED), "labels": FEW}, r"not finite, or all alike"),
        ({"features": np.ones((40, 2)), "labels": FEW}, r"not finite, or all alike"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path: Path, arrays: dict[str, Any], said: str):
    config = Controlled(data="local", path=str(written(tmp_path, **arrays)), train=20)
    with pytest.raises(StudyError, match=rf"^path: \S*mine\.npz .*{said}.*; give an \.npz of numbers"):
        config.check()


@pytest.mark.parametrize("content", [None, b"no archive", b""])
def test_what_is_no_archive_is_refused_too(tmp_path: Path, content: bytes | None):
    file = tmp_path / "mine.npz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StudyError, match=r"^path: \S*mine\.npz cannot be used \(\w+: .*give an \.npz of numbers"):
        Controlled(data="local", path=str(file)).check()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"train": 1797}, r"^train: 1797 inputs are not enough for 1797 and 0 held out"),
        ({"train": 1000, "test": 798}, r"^train: 1797 inputs are not enough for 1000 and 798 held out"),
        ({"labels_per_input": 10}, r"^labels_per_input: 10 of 10 labels leave none"),
        ({"modified": 0.0005}, r"^modified: 0\.0005 of 500 inputs is none or all"),
        ({"modified": 0.9999}, r"^modified: 0\.9999 of 500 inputs is none or all"),
    ],
)
def test_more_than_there_is_is_refused_before_anything_is_learnt(told: dict[str, Any], said: str):
    with pytest.raises(StudyError, match=said):
        Controlled(**told).check()
    with pytest.raises(StudyError, match=said):
        drawn(**told)
