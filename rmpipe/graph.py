"""Graphs in words, and Hamiltonian cycles: easy to verify, hard to find (2507.07981, section 3.2).

A prompt lists the vertices and the edges of a graph; a response is a walk over its vertices. Graphs are drawn so that
each has a cycle through all vertices: a random cycle first, and every other edge with a probability (2306.06523,
section IV.B). The verifier reads the graph from the prompt alone, so that it can judge whatever a model wrote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rmpipe.config import StudyError

if TYPE_CHECKING:
    import torch

SEPARATORS = ("<sep>", "<edge_sep>")
"""Those of the paper: between the items of a list, and between the two ends of an edge."""
PATIENCE = 1000
"""Known graphs drawn in a row, after which there are taken to be no others."""

_EDGE = r"[0-9]+(?P=to)[0-9]+"
_PROMPT = re.compile(
    r"Vertices: (?P<sep>[^0-9\n]+)(?P<vertices>[0-9]+(?:(?P=sep)[0-9]+)*)\n"
    rf"Edges: (?P=sep)(?P<edges>[0-9]+(?P<to>[^0-9\n]+)[0-9]+(?:(?P=sep){_EDGE})*)"
)


@dataclass(frozen=True)
class Graph:
    """A graph with a Hamiltonian cycle, and a walk that is none."""

    edges: tuple[tuple[int, int], ...]
    """(u, v) with u < v, in the order in which they are told."""
    cycle: tuple[int, ...]
    """Every vertex once, each joined to the next, and the last to the first."""
    other: tuple[int, ...]
    """Every vertex once, with a step that is no edge."""


def draw(vertices: int, probability: float, generator: torch.Generator) -> Graph:
    """A graph of the paper's distribution, given that not all its vertices are joined.

    Random numbers are drawn in the order of the paper's code, whose graphs come out for its seed: the cycle, one number
    for each other edge, the order of the edges, and walks until one is no cycle. Where all vertices are joined every
    walk is a cycle; the paper's code fails on such a graph, here another one is drawn.

    Args:
        vertices: at least 4, since any walk over 3 is a cycle.
        probability: of each edge that is not the cycle's, below 1.
    """
    import torch

    while True:
        cycle = torch.randperm(vertices, generator=generator).tolist()
        edges = [(min(step), max(step)) for step in _steps(cycle)]
        others = [(u, v) for u in range(vertices) for v in range(u + 1, vertices) if (u, v) not in edges]
        numbers = torch.rand(len(others), generator=generator).tolist()
        edges += [edge for edge, number in zip(others, numbers, strict=True) if number < probability]
        edges = [edges[place] for place in torch.randperm(len(edges), generator=generator)]
        if len(edges) == vertices * (vertices - 1) // 2:
            continue
        other = cycle
        while _closes(other, edges):
            other = torch.randperm(vertices, generator=generator).tolist()
        return Graph(tuple(edges), tuple(cycle), tuple(other))


def prompt_of(graph: Graph, separators: tuple[str, str] = SEPARATORS) -> str:
    """The graph in words: `Vertices: <sep>0<sep>1...` and, on a second line, `Edges: <sep>0<edge_sep>1...`."""
    between, to = separators
    vertices = "".join(f"{between}{vertex}" for vertex in sorted(graph.cycle))
    return f"Vertices: {vertices}\nEdges: " + "".join(f"{between}{u}{to}{v}" for u, v in graph.edges)


def preferences(
    seed: int, count: int, vertices: int, probability: float, *,
    separators: tuple[str, str] = SEPARATORS, ending: str = "",
) -> list[dict[str, str]]:  # fmt: skip
    """Pairs of a Hamiltonian cycle, chosen, and a walk that is none, rejected, each on a graph of its own.

    No two prompts have the same edges, in whatever order: a held-out graph is one that was never trained on.

    Args:
        seed: of the graphs; those of a smaller count begin those of a larger one.
        ending: what follows the graph in each prompt.

    Returns:
        Rows of id, prompt, chosen and rejected.

    Raises:
        StudyError: there are not so many graphs.
    """
    import torch

    generator, rows, repeats = torch.Generator().manual_seed(seed), list[dict[str, str]](), 0
    known: set[frozenset[tuple[int, int]]] = set()
    while len(rows) < count:
        graph = draw(vertices, probability, generator)
        if frozenset(graph.edges) in known:
            repeats += 1
            _check_patience(repeats, len(rows), count, vertices)
            continue
        repeats = 0
        known.add(frozenset(graph.edges))
        chosen, rejected = (separators[0].join(map(str, walk)) for walk in (graph.cycle, graph.other))
        told = {"prompt": prompt_of(graph, separators) + ending, "chosen": chosen, "rejected": rejected}
        rows.append({"id": f"hamiltonian-{len(rows)}", **told})
    return rows


def is_hamiltonian_cycle(prompt: str, response: str) -> bool:
    """Whether a response names every vertex of the prompt's graph once, each joined to the next, and last to first.

    Space around the vertices says nothing, since some tokenizers add it. Any text will do: where the prompt tells of no
    graph, nothing is a cycle.
    """
    told = _PROMPT.search(prompt)
    if told is None:
        return False
    between = told["sep"].strip() or None  # None parts at any space
    walk = [vertex.strip() for vertex in response.split(between)]
    vertices = re.findall("[0-9]+", told["vertices"])
    ends = re.findall("[0-9]+", told["edges"])
    edges = list(zip(ends[::2], ends[1::2], strict=True))
    return sorted(walk) == sorted(vertices) and _closes(walk, edges)


def _closes(walk: Sequence[Any], edges: Sequence[tuple[Any, Any]]) -> bool:
    joined = {frozenset(edge) for edge in edges}
    return all(frozenset(step) in joined for step in _steps(walk))


def _steps(walk: Sequence[Any]) -> list[tuple[Any, Any]]:
    """From each vertex to the next, and from the last to the first."""
    return list(zip(walk, [*walk[1:], *walk[:1]], strict=True))


def _check_patience(repeats: int, found: int, count: int, vertices: int) -> None:
    if repeats >= PATIENCE:
        told = f"{found} distinct graphs of {vertices} vertices were found, {count} are asked for"
        raise StudyError(f"dataset.pairs: {told}; lower it, or raise dataset.vertices")
