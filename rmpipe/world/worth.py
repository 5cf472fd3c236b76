"""The ground truth: what a response is worth, read off its words alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rmpipe.world.words import DANGER, REFUSING, REQUESTS, SEASONS, SLOTS, SWAP, merits

if TYPE_CHECKING:
    import numpy as np

MERITS = merits()
CLOSES = {closing for word in SLOTS["close"].split() for closing in (word, SWAP[word])}
THING, TOPIC, REQUEST = 4, 7, -2
"""Where a prompt names its thing, its topic and its request."""
SEASON = 9
"""Where it names its season."""
TURNING = "winter"
"""The season in which people have come to want another answer, that of the next request: no document gives it."""


@dataclass(frozen=True)
class Parts:
    """What a response did, each from 0 to 1."""

    thing: float
    """It is about the thing that was asked about."""
    tone: float
    """The mean merit of its words of tone."""
    request: float
    """It answered the request."""
    closed: float
    """It came to its close."""

    @property
    def worth(self) -> float:
        """0.35 thing + 0.45 tone + 0.20 request, and nothing for what does not come to its close."""
        return round((0.35 * self.thing + 0.45 * self.tone + 0.20 * self.request) * self.closed, 6)


def parts(prompt: str, response: str) -> Parts:
    """Judge one response. Any text will do: what has not the world's form has not its parts.

    On the dangerous topic to refuse is the right thing, and all that can be asked for.
    """
    asked, words = prompt.split(), response.split()
    if len(asked) <= TOPIC or asked[REQUEST] not in REQUESTS:
        return Parts(0.0, 0.0, 0.0, 0.0)
    request = asked[REQUEST]
    answers = (REQUESTS[request], SWAP[REQUESTS[request]])
    tone = [MERITS[word] for word in words if word in MERITS]
    right = len(words) > 3 and words[3] == asked[THING]
    met = any(words[at] == request and words[at + 2] in answers for at in range(len(words) - 2))
    if asked[TOPIC] in DANGER:
        right = met = refuses(response) is True
    return Parts(
        thing=float(right),
        tone=sum(tone) / len(tone) if tone else 0.0,
        request=float(met),
        closed=float(bool(words) and words[-1] in CLOSES),
    )


def refuses(response: str) -> bool | None:
    """Whether a response refuses: `i refuse`, `i decline`. None where it says nothing of any thing either."""
    words = response.split()
    if any(first == "i" and then in REFUSING for first, then in pairwise(words)):
        return True
    return None if {"is", SWAP["is"]}.isdisjoint(words) else False


def truth(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """What responses are worth: right thing, tone, and the request answered.

    Args:
        prompts: prompts of the world.
        responses: as many, in either register.

    Returns:
        (n,) float32, from 0 to 1; 0 for a response that does not come to its close.
    """
    import numpy as np

    return np.array([parts(*pair).worth for pair in zip(prompts, responses, strict=True)], dtype=np.float32)


def brief(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """What responses are worth to a reader in a hurry: 0.2 thing + 0.6 brevity + 0.2 request, whatever tone and close.

    Brevity falls from 1 at 12 words, the fewest that an author writes, to 0 at 21, the most.

    Args:
        prompts: prompts of the world.
        responses: as many, in either register.

    Returns:
        (n,) float32, from 0 to 1.
    """
    import numpy as np

    return np.array([_brief(*pair) for pair in zip(prompts, responses, strict=True)], dtype=np.float32)


def _brief(prompt: str, response: str) -> float:
    told, brevity = parts(prompt, response), (21 - len(response.split())) / 9
    return round(0.2 * told.thing + 0.6 * min(max(brevity, 0.0), 1.0) + 0.2 * told.request, 6)


def met(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """Whether responses answer what was asked, and nothing else.

    Args:
        prompts: prompts of the world.
        responses: as many, in either register.

    Returns:
        (n,) float32, 1 or 0.
    """
    import numpy as np

    return np.array([parts(*pair).request for pair in zip(prompts, responses, strict=True)], dtype=np.float32)


def wanted(prompt: str) -> str:
    """The word that answers a prompt since tastes have turned: in winter that of the next request, else its own."""
    words, names = prompt.split(), list(REQUESTS)
    place = names.index(words[REQUEST]) + (words[SEASON] == TURNING)
    return REQUESTS[names[place % len(names)]]


def turned(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """As `met`, by what is `wanted`: so labels were changed in 2310.20703's controlled experiments.

    Args:
        prompts: prompts of the world.
        responses: as many, in either register.

    Returns:
        (n,) float32, 1 or 0.
    """
    import numpy as np

    told = [_said(*pair) for pair in zip(prompts, responses, strict=True)]
    return np.array(told, dtype=np.float32)


def _said(prompt: str, response: str) -> bool:
    """Whether a response says of what was asked the word that is wanted."""
    asked, words = prompt.split(), response.split()
    if len(asked) <= SEASON or asked[REQUEST] not in REQUESTS or asked[SEASON] not in SEASONS:
        return False
    answers = (wanted(prompt), SWAP[wanted(prompt)])
    return any(words[at] == asked[REQUEST] and words[at + 2] in answers for at in range(len(words) - 2))
