"""Subsets: which pairs are kept, in windows as the published code has them, and what cannot be kept is said."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import pytest

from rmpipe.config import StudyError, identity
from rmpipe.subset import Highest, Lowest, Other, Quantile, Random, Subset, Whole

WORLD = {"source": "world", "pairs": 60}


def table(values: list[float], equal: tuple[int, ...] = ()) -> pd.DataFrame:
    """Pairs of some similarities; those at the places in `equal` have responses of equally many tokens."""
    longer = [5.0 + (place not in equal) for place in range(len(values))]
    return pd.DataFrame({
        "id": [f"p{place}" for place in range(len(values))], "ches": values, "chosen_tokens": 5.0,
        "rejected_tokens": longer,
    })  # fmt: skip


def published(count: int, size: int, at: float) -> range:
    """The window of the published code over an ascending order (2410.08847, similarity_measures_experiment_runner)."""
    middle = round(at * (count - 1))
    start = max(0, middle - size // 2)
    end = min(count, start + size)
    return range(max(0, end - size), end)


@pytest.mark.parametrize("at", [0, 0.25, 0.5, 0.75, 1])
@pytest.mark.parametrize(("count", "size"), [(10, 4), (11, 4), (10, 3), (4, 4), (101, 16)])
def test_a_window_around_a_quantile_is_the_published_one(count, size, at):
    ranks = np.random.default_rng(0).permutation(count)
    kept = Quantile(at=at, count=size).kept(table(ranks.astype(float).tolist()), seed=1)
    assert sorted(ranks[kept]) == list(published(count, size, at))


def test_the_ends_of_an_order_are_kept_and_the_rows_stay_in_theirs():
    some = table([3.0, 1.0, 2.0, 0.0, 4.0])
    assert Lowest(count=2).kept(some, seed=1).tolist() == [1, 3]
    assert Highest(share=0.4).kept(some, seed=1).tolist() == [0, 4]


def test_of_equal_similarities_the_earlier_pairs_are_lower():
    some = table([1.0, 1.0, 1.0, 1.0])
    assert Lowest(count=2).kept(some, seed=1).tolist() == [0, 1]
    assert Highest(count=2).kept(some, seed=1).tolist() == [2, 3]


def test_a_random_subset_is_drawn_by_the_seed_each_pair_once():
    some = table([0.0] * 40)
    first, again, other = (Random(share=0.5).kept(some, seed).tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 20


def test_a_random_subset_does_not_hold_what_is_drawn_by_the_bare_seed():
    kept = Random(share=0.5).kept(table([0.0] * 400), 1)
    others = np.random.default_rng(1).permutation(400)[:200]
    assert 60 < len(np.intersect1d(kept, others)) < 140


def test_pairs_of_equal_length_are_chosen_among_and_found_in_the_whole_table():
    some = table([5.0, 1.0, 4.0, 0.0, 3.0], equal=(0, 2, 4))
    assert Lowest(count=2, equal_length=0).kept(some, seed=1).tolist() == [2, 4]
    assert Whole(equal_length=0).kept(some, seed=1).tolist() == [0, 2, 4]


@pytest.mark.parametrize(("within", "kept"), [(0, [1]), (0.1, [1, 2]), (0.2, [0, 1, 2, 3])])
def test_lengths_are_equal_within_a_share_of_the_chosen_one_on_either_side(within, kept):
    some = table([0.0] * 5).assign(chosen_tokens=10.0, rejected_tokens=[8.0, 10.0, 11.0, 12.0, 13.0])
    assert Whole(equal_length=within).kept(some, seed=1).tolist() == kept


@pytest.mark.parametrize("within", [True, 1, -0.1])
def test_how_far_lengths_may_differ_is_a_share(within):
    with pytest.raises(ValueError, match="equal_length"):
        Whole(equal_length=within)


def test_without_a_pair_of_equal_length_the_remedy_is_said():
    with pytest.raises(StudyError, match=r"no pair of 3 .* equal length; raise equal_length, or leave it out"):
        Random(share=0.5, equal_length=0).kept(table([1.0, 2.0, 3.0]), seed=1)


def test_more_pairs_than_there_are_are_not_given_as_fewer_silently():
    with pytest.raises(StudyError, match=r"lowest: count = 4, but there are 3 pairs to choose from; lower it"):
        Lowest(count=4).kept(table([1.0, 2.0, 3.0]), seed=1)


def test_a_similarity_that_the_diagnosis_has_not_is_named():
    with pytest.raises(StudyError, match="no 'chess'"):
        Lowest(by="chess", count=1).kept(table([1.0]), seed=1)


@pytest.mark.parametrize("size", [{}, {"count": 2, "share": 0.5}])
def test_a_size_is_said_once(size):
    with pytest.raises(ValueError, match="say count or share"):
        Random(**size)


def test_a_rule_of_ones_own_may_give_a_mask_and_an_empty_one_is_refused():
    class Masked(Subset):
        kind: str = "masked"
        above: float

        def choose(self, table, seed):
            return (table["ches"] > self.above).to_numpy()

    assert Masked(above=1.5).kept(table([3.0, 1.0, 2.0]), seed=1).tolist() == [0, 2]
    with pytest.raises(StudyError, match="masked: no pair of 2 is left"):
        Masked(above=9).kept(table([3.0, 1.0]), seed=1)


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda table: 1 / 0, r"Mine: choose fails: ZeroDivisionError: division by zero; mend it"),
        (lambda table: table["nothing"], r"Mine: choose fails: KeyError: 'nothing'"),
        (
            lambda table: [0, 100_000],
            r"Mine: choose: of 3 pairs it gives that at 100000; give places in the table, or a",
        ),
        (lambda table: [-1], r"gives that at -1"),
        (lambda table: ["a"], r"gives <U1 of shape \(1,\)"),
        (lambda table: [True, False], r"gives bool of shape \(2,\)"),
        (lambda table: [[0, 1]], r"gives int64 of shape \(1, 2\)"),
        (lambda table: 1.5, r"gives float64 of shape \(\)"),
    ],
)
def test_what_goes_wrong_in_a_rule_of_ones_own_is_said_with_its_place(gives, said):
    class Mine(Subset):
        kind: str = "mine"

        def choose(self, table, seed):
            return gives(table)

    with pytest.raises(StudyError, match=said) as told:
        Mine().kept(table([3.0, 1.0, 2.0]), seed=1)
    assert str(told.value).startswith(f"subsets: {__name__}:")


def test_another_data_set_is_read_by_its_source_and_its_lengths_are_not_known():
    other = Subset.parse({"kind": "other", "data": WORLD}, "subsets.gold")
    assert isinstance(other, Other)
    assert other.data.pairs == 60  # type: ignore[attr-defined]
    with pytest.raises(StudyError, match=r"subsets\.gold: .*not diagnosed; leave it out"):
        Subset.parse({"kind": "other", "data": WORLD, "equal_length": 0}, "subsets.gold")
    with pytest.raises(StudyError, match=r"subsets\.gold\.data\.paris: unknown key; did you mean pairs"):
        Subset.parse({"kind": "other", "data": {"source": "world", "paris": 3}}, "subsets.gold")


def test_several_quantiles_are_a_rung_each_by_its_name():
    ladder = Subset.parse({"kind": "quantile", "by": "edit", "at": [0, 0.25, 0.075, 1], "count": 3}, "subsets.edit")
    rungs = ladder.members("edit")
    assert {name: rung.at for name, rung in rungs.items()} == {
        "edit_0": 0, "edit_25": 0.25, "edit_7.5": 0.075, "edit_100": 1
    }  # fmt: skip
    assert rungs["edit_25"] == Quantile(by="edit", at=0.25, count=3)
    assert Quantile(at=0.25, count=3).members("one") == {"one": Quantile(at=0.25, count=3)}


@pytest.mark.parametrize("at", [1.5, [], [0, 2], [0.5, 0.5]])
def test_quantiles_are_from_0_to_1_and_each_once(at):
    with pytest.raises(ValueError, match="from 0 to 1, or a list of them, each once"):
        Quantile(at=at, count=3)


def test_who_trains_on_a_subset_moves_no_address_and_is_no_part_of_its_rule():
    plain, named = (Lowest(count=2, trainings=names) for names in (None, ("dpo",)))
    assert identity(plain) == identity(named) == {"kind": "lowest", "count": 2, "share": None, "by": "ches"}
    assert plain.rule() == named.rule() == identity(plain) | {"equal_length": None}


def test_a_rule_says_nothing_of_this_machine_and_names_what_is_not_ours_by_its_place(tmp_path):
    class Best(Lowest):
        pass

    other = Subset.parse({"kind": "other", "data": {"source": "local", "path": str(tmp_path)}}, "subsets.gold")
    assert str(tmp_path) not in str(other.rule())
    assert Best(count=2).rule()["kind"].endswith("Best")


def test_a_rule_of_one_s_own_that_chooses_nothing_is_known_to_be_unfinished():
    from rmpipe.study import lacking

    class Best(Subset):
        kind: Literal["best"] = "best"

    assert lacking(Best) == ["choose"]
    assert lacking(Lowest) == []
