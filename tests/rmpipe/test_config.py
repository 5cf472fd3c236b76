"""Configuration: refused when wrong, hashed by what decides what comes out, found by one literal."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from rmpipe.config import (
    Config,
    Neutral,
    Registry,
    Runtime,
    StudyError,
    canonical_json,
    digest,
    explain,
    flatten,
    identity,
    nearest,
    plain,
)
from rmpipe.shift import Shift


class Inner(Config):
    width: int = Field(2, ge=1)
    threads: Annotated[int, Runtime] = 1


class Other(Config):
    height: float = 1.0


class Outer(Config):
    name: str
    inner: Inner = Inner()
    either: Inner | Other = Inner()
    sides: Annotated[tuple[int, ...], Neutral(())] = ()
    members: dict[str, Inner] = {}  # noqa: RUF012 - pydantic copies it
    batch: Annotated[int | None, Runtime] = None
    later: Annotated[int, Neutral(0)] = 0


class Shape(Registry, Config, key="shape", group="rmpipe.no_such_group"):
    shape: str


class Circle(Shape):
    shape: Literal["circle", "disc"] = "circle"
    radius: float = Field(gt=0)
    inner: Inner = Inner()


def told(kind: type[Config], **fields) -> str:
    with pytest.raises(ValidationError) as caught:
        kind(**fields)
    return explain(caught.value, kind, "here")


# -- identity ---------------------------------------------------------------------------------------------------------


def test_identity_holds_what_decides_and_not_how_fast_nor_what_is_at_rest():
    rest = {"name": "a", "inner": {"width": 2}, "either": {"width": 2}, "members": {}}
    assert identity(Outer(name="a")) == rest
    assert identity(Outer(name="a", batch=8, inner=Inner(threads=4))) == rest
    assert identity(Outer(name="a", later=3)) == {**rest, "later": 3}
    assert identity(Outer(name="a", members={"x": Inner(width=5)}))["members"] == {"x": {"width": 5}}


def test_the_identity_of_a_kind_that_is_not_ours_holds_its_place_and_its_code(tmp_path, monkeypatch):
    source = """
from typing import Literal
from rmpipe.shift import Shift

class Loud(Shift):
    kind: Literal["loud"] = "loud"
    shift: str = "token"
    def pairs(self, originals, seed, log):
        return []
"""
    monkeypatch.syspath_prepend(tmp_path)
    identities = {}
    for module, text in {"loud_one": source, "loud_two": source, "loud_three": source.replace("[]", "[0]")}.items():
        (tmp_path / f"{module}.py").write_text(text)
        identities[module] = identity(Shift.parse({"kind": f"{module}:Loud"}, "here"))
    places, codes = zip(*(found["class"].split(" ") for found in identities.values()), strict=True)
    assert places == ("loud_one:Loud", "loud_two:Loud", "loud_three:Loud")
    assert codes[0] == codes[1] != codes[2]
    assert "class" not in identity(Shift.parse({"kind": "same"}, "here"))


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Inner().width = 3


def test_equal_values_have_one_text():
    assert canonical_json({"b": [1, 2.5, None], "a": (True, "é")}) == '{"a":[true,"é"],"b":[1,2.5,null]}'
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


def test_a_digest_is_the_beginning_of_sha_256():
    # printf '{"a":1}' | sha256sum
    assert digest({"a": 1}) == "015abd7f5cc5"
    assert digest({"a": 1}, 16) == "015abd7f5cc57a2d"
    assert digest(Inner(threads=9)) == digest({"width": 2}) != digest(Inner(width=3))


@pytest.mark.parametrize("value", [{1, 2}, print, object(), {"deep": [lambda: 0]}, b"bytes"])
def test_what_has_no_stable_text_is_no_part_of_an_address(value: object):
    with pytest.raises(TypeError, match="has no stable text and cannot be part of an address"):
        plain(value)


def test_keys_that_are_no_text_and_numbers_that_are_none_are_refused():
    with pytest.raises(TypeError, match=r"keys must be text, got .*'1'"):
        plain({1: "a"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"x": float("nan")})


def test_leaves_have_dotted_names_and_empty_sections_are_leaves():
    value = {"a": {"b": 1, "c": [2, {"d": 3}]}, "e": [], "f": {}, "g": None}
    assert flatten(value) == {"a.b": 1, "a.c.0": 2, "a.c.1.d": 3, "e": [], "f": {}, "g": None}
    assert flatten({}) == {}


# -- faults -----------------------------------------------------------------------------------------------------------


def test_the_nearest_known_word_is_offered_or_all_of_them():
    assert nearest("temprature", ["temperature", "top_k"]) == "did you mean temperature?"
    assert nearest("xyz", ["b", "a"]) == "known: a, b"


def test_each_fault_is_one_line_with_its_place():
    lines = told(Outer, inner={"width": 0}, nme="a", batch="many").splitlines()
    assert sorted(lines) == [
        "here.batch: Input should be a valid integer, unable to parse string as an integer, got 'many'",
        "here.inner.width: Input should be greater than or equal to 1, got 0",
        "here.name: missing; add it",
        "here.nme: unknown key; did you mean name?",
    ]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"inner": {"widht": 1}}, "here.inner.widht: unknown key; did you mean width?"),
        ({"sides": 1}, "here.sides: expected a list such as [1], got 1"),
        ({"sides": "left"}, """here.sides: expected a list such as ["left"], got 'left'"""),
        ({"members": {"x": {"thread": 1}}}, "here.members.x.thread: unknown key; did you mean threads?"),
        ({"inner": {"name": 1}}, "here.inner.name: unknown key; known: threads, width"),
        ({"either": {"hieght": 1}}, "here.either.Other.hieght: unknown key; did you mean height?"),
    ],
)
def test_the_suggestion_is_a_key_of_the_section_at_fault(fields: dict, line: str):
    assert line in told(Outer, name="a", **fields).splitlines()


# -- families ---------------------------------------------------------------------------------------------------------


def test_a_member_is_found_by_each_of_its_literals():
    assert Shape.parse({"shape": "circle", "radius": 2}, where="s") == Circle(radius=2.0)
    assert Shape.parse({"shape": "disc", "radius": 2}, where="s") == Circle(shape="disc", radius=2.0)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("round", "shapes.a: expected a section, got 'round'"),
        ({"radius": 1}, "shapes.a.shape: missing; known: circle, disc"),
        ({"shape": "cirkle"}, "shapes.a.shape: no shape 'cirkle'; did you mean circle?"),
        ({"shape": ["circle"]}, "shapes.a.shape: expected a name, got ['circle']; known: circle, disc"),
        ({"shape": "circle"}, "shapes.a.radius: missing; add it"),
        ({"shape": "circle", "radius": 0}, "shapes.a.radius: Input should be greater than 0, got 0"),
        ({"shape": "circle", "radius": 1, "radus": 2}, "shapes.a.radus: unknown key; did you mean radius?"),
        (
            {"shape": "circle", "radius": 1, "inner": {"wdth": 2}},
            "shapes.a.inner.wdth: unknown key; did you mean width?",
        ),
    ],
)
def test_a_member_that_cannot_be_read_is_told_with_its_place_and_the_remedy(table: object, line: str):
    with pytest.raises(StudyError) as caught:
        Shape.parse(table, where="shapes.a")
    assert str(caught.value) == line


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan"), "inf"])
def test_numbers_that_are_not_finite_are_refused(number: object):
    assert told(Other, height=number) == f"here.height: Input should be a finite number, got {number!r}"


def test_a_package_that_cannot_be_loaded_is_told_to_those_alone_who_may_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "failing_shapes.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    entries = [EntryPoint("odd", "failing_shapes", Shape.group), EntryPoint("gone", "no_such_shapes", Shape.group)]
    monkeypatch.setattr(
        "rmpipe.config.entry_points", lambda group: [entry for entry in entries if entry.group == group]
    )
    assert Shape.parse({"shape": "circle", "radius": 1}, where="s") == Circle(radius=1.0)
    with pytest.raises(StudyError) as caught:
        Shape.parse({"shape": "odd"}, where="shapes.a")
    assert str(caught.value) == (
        "shapes.a.shape: no shape 'odd'; known: circle, disc; the entry point odd = 'failing_shapes' of"
        " rmpipe.no_such_group cannot be loaded (ZeroDivisionError: division by zero); mend its package or uninstall it"
        "; the entry point gone = 'no_such_shapes' of rmpipe.no_such_group cannot be loaded (ModuleNotFoundError: No"
        " module named 'no_such_shapes'); mend its package or uninstall it"
    )


def test_a_module_without_the_class_is_named_with_its_file_for_another_may_have_its_name():
    import colorsys  # a module of Python's own, read in place of one beside the study

    with pytest.raises(StudyError) as caught:
        Shape.parse({"shape": "colorsys:Mine"}, where="shapes.a")
    assert str(caught.value).startswith(f"shapes.a.shape: colorsys has no 'Mine' ({colorsys.__file__} was read); a sub")


def test_a_module_that_fails_by_a_missing_attribute_is_not_said_to_lack_the_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "lacking_shapes.py").write_text("import math\nmath.no_such\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StudyError, match=r"lacking_shapes cannot be imported \(AttributeError: module 'math' has"):
        Shape.parse({"shape": "lacking_shapes:Mine"}, where="shapes.a")


def test_a_literal_stays_with_the_class_that_says_it():
    class Ring(Circle):
        hole: float = 1.0

    assert type(Shape.parse({"shape": "circle", "radius": 1}, where="s")) is Circle
    assert Ring(radius=1).shape == "circle"


def test_families_are_apart():
    class Colour(Registry, Config, key="colour", group="rmpipe.no_such_group"):
        colour: str

    class Red(Colour):
        colour: Literal["red"] = "red"

    assert set(Colour.family) == {"red"}
    assert set(Shape.family) == {"circle", "disc"}
    assert Colour.parse({"colour": "red"}, where="") == Red()
