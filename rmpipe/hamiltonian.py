"""Hamiltonian cycles as preference pairs: verifying without generating (2507.07981, section 3.2)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rmpipe.dataset import Dataset
from rmpipe.graph import SEPARATORS, preferences
from rmpipe.table import Row

Separator = Annotated[str, Field(pattern=r"^[^0-9\n]+$")]


class HamiltonianSource(Dataset):
    """Graphs in words: a Hamiltonian cycle is chosen, a walk that is none is rejected, by `rmpipe.graph`."""

    source: Literal["hamiltonian"] = "hamiltonian"
    pairs: int = Field(1200, ge=10)
    """Each on a graph of its own; the paper trains on 1,000 and tests on 200."""
    vertices: int = Field(10, ge=4)
    edge_probability: float = Field(0.2, ge=0, lt=1)
    """Of each edge that is not the chosen cycle's."""
    separators: tuple[Separator, Separator] = SEPARATORS
    """Between the items of a list, and between the ends of an edge: the paper's, which it adds to the tokenizer, or
    words that a tokenizer has, such as [" ", " - "]."""
    ending: str = Field("\n", pattern=r"^[^0-9]*$")
    """What a prompt ends with, so that its last vertex and the response's first are two words. The paper's prompts end
    with nothing, since a chat template follows."""

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Made from the seed; with 5 vertices, probability 0.3 and seed 982, the paper's own."""
        size = (self.pairs, self.vertices, self.edge_probability)
        return list(preferences(seed, *size, separators=self.separators, ending=self.ending)), "Hamiltonian cycles"
