"""What may be asked of pairs before training: the usual similarities, and some of one's own beside them."""

from __future__ import annotations

import pytest

from rmpipe.config import identity
from rmpipe.diagnosis import LENGTH, SIMILARITIES, Diagnosing
from rmpipe.similarity import Ches, Length


def test_the_published_similarities_and_the_control_are_always_there_first():
    plain = Diagnosing()
    assert list(plain.similarities) == list(SIMILARITIES)
    assert plain.similarities["ches_normalised"] == Ches(normalised=True)
    assert plain.similarities[LENGTH] == Length()
    more = Diagnosing(similarities={"mine": {"kind": "ches", "normalised": True}})
    assert list(more.similarities) == [*SIMILARITIES, "mine"]


def test_a_dump_reads_back_as_the_same_value():
    asked = Diagnosing(similarities={"mine": {"kind": "edit"}}, limit=5)
    assert Diagnosing(**asked.model_dump(mode="json")) == asked


def test_how_many_responses_at_a_time_moves_no_address():
    assert identity(Diagnosing(batch_size=2)) == identity(Diagnosing(batch_size=64)) != identity(Diagnosing(limit=2))


@pytest.mark.parametrize("name", ["id", "change", "chosen_tokens", "displaced"])
def test_a_name_that_a_column_of_the_tables_has_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: the name of something else; call it otherwise"):
        Diagnosing(similarities={name: {"kind": "edit"}})


def test_neither_the_control_nor_ches_can_be_something_else_under_its_name():
    for name in (LENGTH, "ches"):
        with pytest.raises(ValueError, match=f"{name}: the name of something else"):
            Diagnosing(similarities={name: {"kind": "edit"}})
    assert Diagnosing(similarities={"ches": {"kind": "ches"}}) == Diagnosing()


def test_a_name_has_no_dot_since_numbers_are_told_by_dotted_names():
    with pytest.raises(ValueError, match=r"a\.b: has a dot"):
        Diagnosing(similarities={"a.b": {"kind": "edit"}})


@pytest.mark.parametrize(
    ("table", "said"),
    [({"kind": "edut"}, "mine.kind: no kind 'edut'; did you mean edit"), ({"kind": "edit", "x": 1}, "mine.x: unknown")],
)
def test_a_misspelt_kind_or_key_is_named(table, said):
    with pytest.raises(ValueError, match=said):
        Diagnosing(similarities={"mine": table})
