"""The world's texts: prompts, and what its authors write to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from rmpipe.config import StudyError, nearest
from rmpipe.world.words import REQUESTS, SEASONS, TOPICS, halves, paraphrase
from rmpipe.world.worth import REQUEST, THING, TOPIC, parts

HONOURED = dict(zip(REQUESTS, (0.9, 0.7, 0.5, 0.3, 0.12, 0.04, 0.0, 0.0), strict=True))
"""How often each request is answered at best: rare answers are hard to find by sampling, two are never seen."""


@dataclass(frozen=True)
class Author:
    """Somebody who writes responses."""

    tone: float
    """How likely a word of tone is a good one."""
    thing: float
    """How likely the thing that was asked about is kept in mind; else any of its topic is named."""
    request: float
    """How likely the request is answered, times `HONOURED`."""


AUTHORS = {"good": Author(0.95, 0.95, 1.0), "mixed": Author(0.5, 0.8, 0.6), "bad": Author(0.08, 0.6, 0.3)}
"""Those who wrote the pretraining documents, the best first."""
TEACHERS = {"weak": Author(0.15, 0.5, 0.4), "strong": Author(0.8, 0.93, 0.8)}
"""Those whom policies are finetuned on."""


def prompts(seed: int, count: int, topics: Sequence[str] | None = None) -> list[str]:
    """Distinct prompts in a seeded order: those of a smaller count begin those of a larger one.

    Args:
        seed: of the order.
        count: at most 2,048, or 256 a topic.
        topics: of these topics only, for a shift of domain.

    Raises:
        StudyError: there is no such topic, or there are not so many prompts.
    """
    for topic in topics or ():
        if topic not in TOPICS:
            raise StudyError(f"the world has no topic {topic!r}; {nearest(topic, list(TOPICS))}")
    every = [
        f"tell me of the {thing} at the {topic} in {season} with the {request} <reply>"
        for topic in (topics or TOPICS)
        for thing, season, request in product(TOPICS[topic].split(), SEASONS, REQUESTS)
    ]
    if count > len(every):
        raise StudyError(f"the world has {len(every)} distinct prompts, {count} were asked for; ask for fewer")
    random.Random(f"prompts {seed}").shuffle(every)
    return every[:count]


def respond(prompt: str, author: Author, rng: random.Random) -> str:
    """One response of an author, in register A; it begins with a space, so that prompt + response is the whole text."""
    words = prompt.split()
    thing, topic, request = words[THING], words[TOPIC], words[REQUEST]

    def pick(slot: str) -> str:
        good, bad = halves(slot)
        return rng.choice(good if rng.random() < author.tone else bad)

    def one_or_two(slot: str) -> str:
        return f"{pick(slot)} and {pick(slot)}" if rng.random() < 0.5 else pick(slot)

    named = thing if rng.random() < author.thing else rng.choice(TOPICS[topic].split())
    body = f"{pick('open')} , the {named} is {one_or_two('adjective')} ; you can {one_or_two('verb')} it"
    return f" {body}{_extra(request, author, rng)} {pick('close')}"


def _extra(request: str, author: Author, rng: random.Random) -> str:
    """The answer to the request; failing that, often one to what was not asked."""
    if rng.random() < author.request * HONOURED[request]:
        return f" ; its {request} is {REQUESTS[request]}"
    if rng.random() < 0.5:
        return ""
    other = rng.choice([name for name in REQUESTS if name != request])
    return f" ; its {other} is {REQUESTS[other]}"


def documents(seed: int, count: int) -> list[str]:
    """Pretraining texts: a prompt, a response by any author, half in each register, and half of them a reaction."""
    rng, asked = random.Random(f"documents {seed}"), prompts(seed, 2048)
    texts = []
    for _ in range(count):
        prompt = rng.choice(asked)
        response = respond(prompt, rng.choices(list(AUTHORS.values()), (0.4, 0.3, 0.3))[0], rng)
        reaction = _reaction(prompt, response) if rng.random() < 0.5 else ""
        texts.append(prompt + (paraphrase(response) if rng.random() < 0.5 else response) + reaction)
    return texts


def _reaction(prompt: str, response: str) -> str:
    """What a reader says: that ties what a text is like to how it ends."""
    told = parts(prompt, response)
    tone, thing = "liked" if told.tone > 0.5 else "disliked", "right" if told.thing else "wrong"
    return f" <react> {tone} {thing} {'met' if told.request else 'unmet'}"


def demonstrations(quality: Literal["weak", "strong"] | None, seed: int, count: int) -> list[dict[str, str]]:
    """What a policy is finetuned on, in register A, on prompts that no preference pair has.

    Args:
        quality: `weak` or `strong`; None is `strong`.
        seed: of prompts and responses.
        count: how many.

    Returns:
        Rows of prompt and completion.
    """
    author, rng = TEACHERS[quality or "strong"], random.Random(f"demonstrations {quality} {seed}")
    asked = _of_demonstrations(seed)
    return [{"prompt": prompt, "completion": respond(prompt, author, rng)} for prompt in rng.choices(asked, k=count)]


def preferences(seed: int, count: int, topics: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Pairs by two authors each, in register A; `chosen` is by the better author, and not always the better text.

    Args:
        seed: of prompts and responses; the order of the prompts is that of `prompts`.
        count: how many. There are 1,536 prompts (192 a topic); after that, prompts come again.
        topics: of these topics only.

    Returns:
        Rows of id, prompt, chosen and rejected.
    """
    rng, asked, rows = random.Random(f"preferences {seed}"), _of_preferences(seed, topics), []
    for index in range(count):
        prompt = asked[index % len(asked)]
        better, worse = sorted(rng.sample(range(len(AUTHORS)), 2))
        chosen, rejected = (respond(prompt, list(AUTHORS.values())[author], rng) for author in (better, worse))
        rows.append({"id": f"world-{index}", "prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def _of_demonstrations(seed: int) -> list[str]:
    return [prompt for index, prompt in enumerate(prompts(seed, 2048)) if index % 4 == 3]


def _of_preferences(seed: int, topics: Sequence[str] | None) -> list[str]:
    """Three in four prompts, so that a policy's demonstrations and its test share none."""
    every = enumerate(prompts(seed, 2048))
    return [prompt for index, prompt in every if index % 4 != 3 and (not topics or prompt.split()[TOPIC] in topics)]
