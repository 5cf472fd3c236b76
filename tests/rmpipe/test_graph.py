"""Graphs in words: drawn as the paper's code draws them, and a verifier that reads whatever a model wrote."""

from __future__ import annotations

import pytest
import torch

from rmpipe.config import StudyError
from rmpipe.graph import Graph, draw, is_hamiltonian_cycle, preferences, prompt_of

# 5 vertices, probability 0.3, seed 982: the first that princeton-pli/exrm-vs-imrm@58357b5 draws (utils/data_utils.py)
PUBLISHED = [
    Graph(((2, 4), (3, 4), (1, 3), (1, 2), (0, 1), (2, 3), (0, 3)), (3, 4, 2, 1, 0), (1, 4, 0, 2, 3)),
    Graph(((0, 1), (1, 3), (0, 3), (0, 4), (1, 2), (3, 4), (0, 2)), (3, 4, 0, 2, 1), (0, 2, 3, 4, 1)),
    Graph(((1, 4), (2, 3), (0, 4), (0, 3), (1, 2)), (2, 3, 0, 4, 1), (4, 2, 1, 3, 0)),
]
PROMPT = (
    "Vertices: <sep>0<sep>1<sep>2<sep>3<sep>4\nEdges: <sep>2<edge_sep>4<sep>3<edge_sep>4<sep>1<edge_sep>3"
    "<sep>1<edge_sep>2<sep>0<edge_sep>1<sep>2<edge_sep>3<sep>0<edge_sep>3"
)
JUDGED = {
    "3<sep>4<sep>2<sep>1<sep>0": True,
    "1<sep>4<sep>0<sep>2<sep>3": False,
    "2<sep>1<sep>0<sep>3<sep>4": True,
    "0<sep>1<sep>2<sep>4<sep>3": True,
    "3<sep>4<sep>2<sep>1": False,
    "0<sep>1<sep>x<sep>3<sep>4": False,
    "0<sep>0<sep>1<sep>2<sep>3": False,
    "": False,
}
CLOSED = ["1<sep>2<sep>3", "1<sep>2<sep>3<sep>4<sep>3", "3<sep>4<sep>2<sep>1<sep>0<sep>3<sep>4<sep>2<sep>1<sep>0"]


def test_graphs_are_those_of_the_paper_for_its_seed():
    generator = torch.Generator().manual_seed(982)
    assert [draw(5, 0.3, generator) for _ in PUBLISHED] == PUBLISHED


def test_pairs_are_those_of_the_paper_for_its_seed():
    rows = preferences(982, 3, 5, 0.3)
    assert rows[0] == {
        "id": "hamiltonian-0",
        "prompt": PROMPT,
        "chosen": "3<sep>4<sep>2<sep>1<sep>0",
        "rejected": "1<sep>4<sep>0<sep>2<sep>3",
    }
    assert [row["chosen"] for row in rows[1:]] == ["3<sep>4<sep>0<sep>2<sep>1", "2<sep>3<sep>0<sep>4<sep>1"]
    assert [row["rejected"] for row in rows[1:]] == ["0<sep>2<sep>3<sep>4<sep>1", "4<sep>2<sep>1<sep>3<sep>0"]


@pytest.mark.parametrize(("response", "right"), JUDGED.items())
def test_responses_are_judged_as_the_paper_judges_them(response: str, right: bool):
    assert is_hamiltonian_cycle(PROMPT, response) is right
    assert is_hamiltonian_cycle(f"<|user|>{PROMPT}<|endoftext|><|assistant|>", response) is right


@pytest.mark.parametrize("response", CLOSED)
def test_a_closed_walk_that_misses_a_vertex_or_comes_by_twice_is_no_cycle(response: str):
    assert not is_hamiltonian_cycle(PROMPT, response)


@pytest.mark.parametrize(
    "response",
    [
        "²<sep>4<sep>2<sep>1<sep>0",
        "9" * 5000,
        "<sep>" * 9,
        "3 4 2 1 0",
        "3<sep>4<sep>2<sep>1<sep>0<sep>",
        "٣",
        "\x00\n",
    ],
)
def test_whatever_a_model_writes_is_judged(response: str):
    assert not is_hamiltonian_cycle(PROMPT, response)


@pytest.mark.parametrize("prompt", ["", "tell me of the kettle", "Vertices: <sep>0<sep>1", "Vertices: \nEdges: "])
def test_where_no_graph_is_told_of_nothing_is_a_cycle(prompt: str):
    assert not is_hamiltonian_cycle(prompt, "")
    assert not is_hamiltonian_cycle(prompt, "0<sep>1")


def test_space_around_vertices_says_nothing():
    assert is_hamiltonian_cycle(PROMPT, " 3 <sep> 4 <sep> 2 <sep> 1 <sep> 0\n")


@pytest.mark.parametrize("separators", [("<sep>", "<edge_sep>"), (" ", " - "), (", ", "-"), (" | ", "."), (" ", " ")])
@pytest.mark.parametrize("ending", ["", "\nCycle: "])
def test_chosen_are_cycles_and_rejected_are_not_with_any_separators(separators: tuple[str, str], ending: str):
    for row in preferences(3, 40, 11, 0.2, separators=separators, ending=ending):
        assert row["prompt"].endswith(ending)
        assert is_hamiltonian_cycle(row["prompt"], row["chosen"])
        assert is_hamiltonian_cycle(row["prompt"], " " + row["chosen"] + " ")
        assert not is_hamiltonian_cycle(row["prompt"], row["rejected"])
        assert sorted(row["rejected"].split(separators[0])) == sorted(map(str, range(11)))


def test_edges_are_the_cycles_and_others_as_often_as_asked():
    generator, more = torch.Generator().manual_seed(0), 0
    for _ in range(500):
        graph = draw(10, 0.2, generator)
        edges = {frozenset(edge) for edge in graph.edges}
        steps = {frozenset(step) for step in zip(graph.cycle, graph.cycle[1:] + graph.cycle[:1], strict=True)}
        assert steps <= edges
        assert len(edges) == len(graph.edges)
        assert all(u < v for u, v in graph.edges)
        more += len(edges) - 10
    assert more / 500 / 35 == pytest.approx(0.2, abs=0.012)  # 4 standard errors: 4 sqrt(0.16 / 17500)


def test_a_graph_whose_vertices_are_all_joined_is_never_drawn():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        assert len(draw(4, 0.9, generator).edges) < 6


def test_no_two_pairs_have_the_same_edges_and_fewer_begin_more():
    few, many = preferences(1, 50, 5, 0.2), preferences(1, 150, 5, 0.2)
    assert many[:50] == few
    edges = {frozenset(row["prompt"].split("Edges: <sep>")[1].split("<sep>")) for row in many}
    assert len(edges) == 150


def test_more_graphs_than_there_are_is_refused():
    assert len(preferences(0, 9, 4, 0.5)) == 9  # three cycles, and each with either diagonal
    told = (
        r"^dataset\.pairs: 9 distinct graphs of 4 vertices were found, 10 are asked for; lower it, or raise dataset\.v"
    )
    with pytest.raises(StudyError, match=told):
        preferences(0, 10, 4, 0.5)


def test_rare_graphs_are_waited_for_as_long_as_new_ones_come():
    assert len(preferences(4, 9, 4, 0.006)) == 9  # after 1,549 draws, never 1,000 in a row without a new one


def test_a_prompt_lists_vertices_and_edges():
    assert prompt_of(PUBLISHED[0]) == PROMPT
    told = prompt_of(Graph(((0, 2), (1, 3)), (2, 0, 1, 3), ()), (" ", " - "))
    assert told == "Vertices:  0 1 2 3\nEdges:  0 - 2 1 - 3"
