"""A logarithmic axis whose numbers are plain, and on which 0 has a place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROUND = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))
"""First digits of the numbers at an axis, the widest apart first."""
MOST = 6
"""Numbers at an axis."""


def logarithmic(axes: Axes, side: str, values: Any, at: Sequence[float] = ()) -> float:
    """Make an axis logarithmic.

    Args:
        axes: to be altered.
        side: "x" or "y".
        values: (points,), all that is shown.
        at: where numbers are wanted, as far as there is room; at round ones by default.

    Returns:
        Where on it 0 stands: at its edge, where that has a number only if a value is 0 or below.
    """
    values = np.asarray(values, float)
    above = values[values > 0]
    least, most = (float(above.min()), float(above.max())) if above.size else (0.5, 2.0)
    span = max(float(np.log10(most / least)), 0.3)
    edge, zero = least * 10 ** (-0.15 * span), bool((values <= 0).any())
    shown = _apart([tick for tick in at if tick > 0], 0.1 * span) if at else ticks(least, most)
    told = [(edge, "0")] * zero + [(tick, f"{tick:,g}") for tick in shown]
    getattr(axes, f"set_{side}scale")("log")
    getattr(axes, f"set_{side}lim")((edge if zero else least) * 10 ** (-0.05 * span), most * 10 ** (0.05 * span))
    getattr(axes, f"set_{side}ticks")([], minor=True)
    getattr(axes, f"set_{side}ticks")([tick for tick, _ in told], [text for _, text in told])
    return edge


def ticks(least: float, most: float) -> list[float]:
    """Round numbers between two, three to `MOST` of them; the two themselves where they are near each other."""
    tens = range(int(np.floor(np.log10(least))), int(np.ceil(np.log10(most))) + 1)
    for digits in ROUND:
        found = [float(f"{digit}e{ten}") for ten in tens for digit in digits]
        found = [tick for tick in found if least <= tick <= most]
        if len(found) > 2:
            return found[:: -(-len(found) // MOST)]
    return [float(f"{end:.2g}") for end in dict.fromkeys((least, most))]


def _apart(places: Sequence[float], decades: float) -> list[float]:
    """Rising places, without those too near to the one before."""
    found: list[float] = []
    for place in places:
        if not found or np.log10(place / found[-1]) >= decades:
            found.append(place)
    return found
