"""Ground truths: functions of prompts and responses that stand for what people want.

A function is named in a study by its registered name, or as `package.module:function`, which imports the study's own
code: the module must be importable where `rmpipe` runs. Other packages add names through the entry point group
`rmpipe.truths`, whose modules need only use `@ground_truth("name")` when they are imported.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rmpipe.config import in_one_line, load_entries, nearest
from rmpipe.text import Text, readable

if TYPE_CHECKING:
    import numpy as np

TruthFunction = Callable[[Sequence[Text], Sequence[str]], Any]

GOOD = (
    "happy glad smile smiled laugh laughed love loved kind nice good great fun friend friends play played hug hugged "
    "beautiful pretty proud brave safe share shared help helped thank thanked joy bright warm sweet best excited"
)
BAD = (
    "sad cry cried angry mad mean bad hurt scared afraid fear dark lost broke broken alone hate hated ugly sick tired "
    "scary worried sorry upset fell fight dirty cold die died pain yelled worst"
)


def world(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
    """The embedded world's ground truth, (n,), from 0 to 1."""
    from rmpipe.world import truth

    return truth(list(prompts), list(responses))  # type: ignore[arg-type]


def brief(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
    """What a response of the embedded world is worth to a reader in a hurry, (n,), from 0 to 1."""
    from rmpipe.world import brief

    return brief(list(prompts), list(responses))  # type: ignore[arg-type]


def met(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
    """1 where a response answers what its prompt of the embedded world asks for, else 0, (n,)."""
    from rmpipe.world import met

    return met(list(prompts), list(responses))  # type: ignore[arg-type]


def turned(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
    """As `met`, where in winter another answer is wanted, which the embedded world's documents never give, (n,)."""
    from rmpipe.world import turned

    return turned(list(prompts), list(responses))  # type: ignore[arg-type]


def story(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
    """0.6 tone + 0.8 distinct-word share + 0.2 for ending a sentence, (n,); for tiny models of children's stories.

    Tone is (good - bad) / (good + bad) over the words of two short lists, from -1 to 1, and 0 where there are none.
    """
    import numpy as np

    return np.array([_story(response) for response in responses], dtype=np.float32)


def tone(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
    """The tone of a story, (n,), from -1 to 1: the first part of `story` alone."""
    import numpy as np

    return np.array([_tone(_words(response)) for response in responses], dtype=np.float32)


def length(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
    """Words in the response, (n,): the control that many a reward model has learnt."""
    import numpy as np

    return np.array([len(response.split()) for response in responses], dtype=np.float32)


def hamiltonian(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
    """1 for a Hamiltonian cycle of the prompt's graph, else 0, (n,); for the source of that name (2507.07981, 3.2)."""
    import numpy as np

    from rmpipe.graph import is_hamiltonian_cycle

    pairs = zip(map(readable, prompts), responses, strict=True)
    return np.array([is_hamiltonian_cycle(prompt, response) for prompt, response in pairs], dtype=np.float32)


def _story(response: str) -> float:
    words = _words(response)
    if not words:
        return 0.0
    ended = response.rstrip("\"' \n").endswith((".", "!", "?"))
    return 0.6 * _tone(words) + 0.8 * len(set(words)) / len(words) + 0.2 * ended


def _words(response: str) -> list[str]:
    return re.findall(r"[a-z']+", response.lower())


def _tone(words: list[str]) -> float:
    good, bad = (sum(word in tones.split() for word in words) for tones in (GOOD, BAD))
    return (good - bad) / max(1, good + bad)


# Named here, not by decorators, so that whoever reads the code (rmpipe.code does) sees what a name leads to.
REGISTERED: dict[str, TruthFunction] = {
    "world": world, "story": story, "length": length, "hamiltonian": hamiltonian, "met": met,
    "turned": turned, "brief": brief, "tone": tone,
}  # fmt: skip


def ground_truth(name: str) -> Callable[[TruthFunction], TruthFunction]:
    """Register a function of (prompts, responses) -> (n,) rewards under a name.

    Raises:
        ValueError: the name is taken by another function.
    """

    def register(function: TruthFunction) -> TruthFunction:
        if REGISTERED.get(name, function) is not function:
            raise ValueError(f"ground truth {name!r} is there already: {REGISTERED[name]!r}; take another name")
        REGISTERED[name] = function
        return function

    return register


def find(name: str) -> TruthFunction:
    """The function that a name, or `package.module:function`, stands for.

    Raises:
        ValueError: no such name, module or function, or a module that fails when it is imported; says which, and the
            nearest known name.
    """
    if ":" in name:
        return _imported(name)
    faults = [] if name in REGISTERED else load_entries("rmpipe.truths")
    if name not in REGISTERED:
        told = f"no ground truth {name!r}; {nearest(name, list(REGISTERED))}, or package.module:function"
        raise ValueError("; ".join([told, *faults]))
    return REGISTERED[name]


def fingerprint(name: str) -> str:
    """SHA-256 of the file of a function from outside this package; empty for those inside, whose code is known."""
    function = inspect.unwrap(find(name))
    if getattr(function, "__module__", "").split(".")[0] == "rmpipe":
        return ""
    file = inspect.getsourcefile(function)
    if file is None:
        return ""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _imported(name: str) -> TruthFunction:
    module, _, attribute = name.partition(":")
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a user's module raises what it likes
        remedy = "install it, or put its folder on PYTHONPATH" if isinstance(error, ImportError) else "mend it"
        raise ValueError(f"cannot import {module!r} ({in_one_line(error)}); {remedy}") from error
    if not hasattr(imported, attribute):
        raise ValueError(f"module {module!r} has no {attribute!r}; name one of its functions")
    function = getattr(imported, attribute)
    if not callable(function):
        raise ValueError(f"{name} is not a function of (prompts, responses)")
    found: TruthFunction = function
    return found
