"""What a stage's code is: digests that move when what is computed does, and at no other time."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rmpipe import code
from rmpipe.code import changed, code_key

WORK = """
    '''A module.'''
    from shop.tools import double
    from shop import tools
    import shop.tools as aliased
    LIMIT = 3
    UNUSED = 4

    def work(x):
        '''Says what it does.'''
        return double(x) + LIMIT  # a comment

    def by_module(x):
        return tools.triple(x) + aliased.half(x)

    def within(x):
        from shop.tools import half
        return half(x)

    def alone(x):
        import json
        return json.dumps(x)
"""
TOOLS = """
    def double(x):
        return 2 * half(x)

    def half(x):
        return x / 2

    def triple(x):
        return 3 * x
"""
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules of a throw-away package `shop`, which is taken for ours; what was read before is forgotten."""
    monkeypatch.setattr(code, "OURS", ("shop",))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("from shop.tools import double\n")

    def forget() -> None:
        code.forget()
        for name in [name for name in sys.modules if name.split(".")[0] == "shop"]:
            del sys.modules[name]

    def write(**modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / "shop" / f"{name}.py").write_text(textwrap.dedent(text))
        forget()

    write(work=WORK, tools=TOOLS)
    yield write
    forget()


def reached(*roots: str) -> set[str]:
    return {name.removeprefix("shop.") for name in code_key(*(f"shop.{root}" for root in roots))}


# -- what is reached --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("work.work", {"work.work", "work.LIMIT", "tools.double", "tools.half"}),
        ("work.by_module", {"work.by_module", "tools.triple", "tools.half"}),
        ("work.within", {"work.within", "tools.half"}),
        ("work.alone", {"work.alone"}),
        ("work.none", set()),
        ("nowhere.none", set()),
    ],
)
def test_a_function_reaches_what_it_mentions_however_imported(write: Write, root: str, expected: set[str]):
    assert reached(root) == expected


def test_several_roots_reach_together(write: Write):
    assert reached("work.alone", "tools.triple") == {"work.alone", "tools.triple"}


def test_what_a_package_hands_on_is_found_at_its_home(write: Write):
    write(work="from shop import double\n\ndef work(x):\n    return double(x)\n")
    assert reached("work.work") == {"work.work", "tools.double", "tools.half"}


def test_what_is_asked_of_a_package_that_hands_it_on_is_found_at_its_home(write: Write):
    write(work="import shop\n\ndef work(x):\n    return shop.double(x)\n")
    assert reached("work.work") == {"work.work", "tools.double", "tools.half"}


def test_a_class_reaches_its_methods_names_and_its_heirs(write: Write):
    write(
        work="""
        from shop.tools import half, triple

        class Base:
            def run(self, x):
                return half(x)

        class Heir(Base):
            def run(self, x):
                return triple(x)

        class Stranger:
            pass

        def work(x):
            return Base().run(x)
        """
    )
    assert reached("work.work") == {"work.work", "work.Base", "work.Heir", "tools.half", "tools.triple"}


def test_the_mechanism_is_left_out(write: Write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(code, "OVERSEERS", {"shop.tools"})
    assert reached("work.work") == {"work.work", "work.LIMIT"}
    code._known.clear()
    monkeypatch.setattr(code, "OVERSEERS", {"shop.tools.half"})
    assert reached("work.work") == {"work.work", "work.LIMIT", "tools.double"}


def test_calls_in_a_ring_come_to_an_end(write: Write):
    write(work="def even(x):\n    return x == 0 or odd(x - 1)\n\ndef odd(x):\n    return x != 0 and even(x - 1)\n")
    assert reached("work.even") == {"work.even", "work.odd"}


# -- what moves -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return 2 * half(x)", "return 2*half( x )  # twice"),
        ("def double(x):", "def double(x):\n        '''Twice.'''"),
        ("return 3 * x", "return 4 * x"),  # not reached
        ("def half(x):", "\n\n    # half of it\n    def half(x):"),
    ],
)
def test_words_layout_and_what_is_not_reached_move_nothing(write: Write, old: str, new: str):
    before = code_key("shop.work.work")
    assert old in TOOLS
    write(tools=TOOLS.replace(old, new))
    assert code_key("shop.work.work") == before


@pytest.mark.parametrize(
    ("module", "old", "new", "moved"),
    [
        ("tools", "return x / 2", "return x // 2", ["shop.tools.half"]),
        ("work", "LIMIT = 3", "LIMIT = 5", ["shop.work.LIMIT"]),
        ("work", "+ LIMIT", "- LIMIT", ["shop.work.work"]),
        (
            "tools",
            "return 2 * half(x)",
            "return 2 * triple(x)",
            [f"shop.tools.{n}" for n in ("double", "half", "triple")],
        ),
    ],
)
def test_what_is_computed_moves_its_own_digest_alone(write: Write, module: str, old: str, new: str, moved: list[str]):
    before, text = code_key("shop.work.work"), {"work": WORK, "tools": TOOLS}[module]
    assert old in text
    write(**{module: text.replace(old, new)})
    assert changed(before, code_key("shop.work.work")) == moved


def test_what_changed_is_named_with_what_came_and_went():
    assert changed({"a": "1", "b": "1", "c": "1"}, {"b": "2", "c": "1", "d": "1"}) == ["a", "b", "d"]
    assert changed({"a": "1"}, {"a": "1"}) == []


# -- ours -------------------------------------------------------------------------------------------------------------


def test_a_stage_of_ours_reaches_what_it_computes_with_and_none_of_the_mechanism():
    code_key_of_score = code_key("tasks.score.score")
    assert {"tasks.score.score", "rmpipe.scoring.SequenceScorer", "rmpipe.text.encode"} <= set(code_key_of_score)
    modules = {name.rpartition(".")[0] for name in code_key_of_score}
    assert not modules & {"rmpipe.store", "rmpipe.lineage", "rmpipe.config", "tasks.stage"}


def test_how_an_artifact_reads_its_rows_is_computing_and_how_it_is_found_is_not():
    reached = set(code_key("tasks.score.score"))
    assert {"rmpipe.artifact.Rollouts", "rmpipe.artifact.Preferences"} <= reached
    assert "rmpipe.artifact.Artifact" not in reached


def test_a_file_that_is_named_beside_the_module_counts(write: Write, tmp_path: Path):
    write(work='def work():\n    return open("page.html").read()\n')
    before = code_key("shop.work.work")
    (tmp_path / "shop" / "page.html").write_text("<p>one</p>")
    write()
    one = code_key("shop.work.work")
    (tmp_path / "shop" / "page.html").write_text("<p>two</p>")
    write()
    assert len({digests["shop.work.work"] for digests in (before, one, code_key("shop.work.work"))}) == 3


def test_the_world_that_stages_are_made_from_counts():
    assert {"rmpipe.world.text.documents", "rmpipe.world.model.new_model"} <= set(code_key("tasks.pretrain.pretrain"))
    assert "rmpipe.verdict.table" in code_key("tasks.rank.rank")


def test_the_page_s_template_is_part_of_what_a_report_is_made_by():
    assert "rmpipe.page._template" in code_key("tasks.report.report")
    (file,) = code._files("rmpipe.page", code._definitions("rmpipe.page")["_template"])
    assert file.name == "page.html"


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_digests_are_kept_for_the_next_process_until_a_file_of_ours_is_written(write: Write, tmp_path: Path):
    file = tmp_path / "code.json"
    with code.remembered(file):
        before = code_key("shop.work.work")
    code.forget()
    with code.remembered(file):
        assert code._known == {"shop.work.work": before}
    # by whatever hand, in the life of one process
    (tmp_path / "shop" / "tools.py").write_text(textwrap.dedent(TOOLS.replace("return x / 2", "return x // 2")))
    with code.remembered(file):
        assert code._known == {}
        assert changed(before, code_key("shop.work.work")) == ["shop.tools.half"]


@pytest.mark.parametrize("text", ["", "{}", '{"state": 1, "digests"'])
def test_a_file_that_cannot_be_used_is_passed_over(write: Write, tmp_path: Path, text: str):
    (tmp_path / "code.json").write_text(text)
    with code.remembered(tmp_path / "code.json"):
        assert reached("work.alone") == {"work.alone"}


def test_a_family_reaches_the_members_in_the_modules_that_it_names():
    reached = code_key("tasks.score.score")
    assert {"rmpipe.implicit.Implicit", "rmpipe.generative.Generative", "rmpipe.explicit.Explicit"} <= set(reached)
    assert "rmpipe.graph.is_hamiltonian_cycle" in code_key("tasks.prepare.prepare") | code_key("tasks.score.score")
