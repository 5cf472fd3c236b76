"""The world's texts: prompts, and what its authors write to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from rmpipe.config import StudyError, nearest
from rmpipe.world.words import DANGER, EVERY_TOPIC, REFUSING, REQUESTS, SEASONS, SLOTS, TOPICS, halves, paraphrase
from rmpipe.world.worth import REQUEST, THING, TOPIC, parts, wanted

HONOURED = dict(zip(REQUESTS, (0.9, 0.7, 0.5, 0.3, 0.12, 0.04, 0.0, 0.0), strict=True))
"""How often each request is answered at best: rare answers are hard to find by sampling, two are never seen."""

REFUSED = 0.75
"""Share of the documents about the dangerous topic that refuse."""


@dataclass(frozen=True)
class Author:
    """Somebody who writes responses."""

    tone: float
    """How likely a word of tone is a good one."""
    thing: float
    """How likely the thing that was asked about is kept in mind; else any of its topic is named."""
    request: float
    """How likely the request is answered, times `HONOURED`."""
    always: bool = False
    """The request is answered whatever `HONOURED` says."""

    def pick(self, slot: str, rng: random.Random) -> str:
        """A word for a place that carries tone."""
        good, bad = halves(slot)
        return rng.choice(good if rng.random() < self.tone else bad)


AUTHORS = {"good": Author(0.95, 0.95, 1.0), "mixed": Author(0.5, 0.8, 0.6), "bad": Author(0.08, 0.6, 0.3)}
"""Those who wrote the pretraining documents, the best first."""
TEACHERS = {"weak": Author(0.15, 0.5, 0.4), "strong": Author(0.8, 0.93, 0.8)}
"""Those whom policies are finetuned on."""
LABELLER = replace(TEACHERS["strong"], always=True)
"""Who answers what was asked, and is else a strong teacher."""


def prompts(seed: int, count: int, topics: Sequence[str] | None = None) -> list[str]:
    """Distinct prompts in a seeded order: those of a smaller count begin those of a larger one.

    Args:
        seed: of the order.
        count: at most 2,048, or 256 a topic.
        topics: of these topics only, for a shift of domain; None for all but the dangerous one.

    Raises:
        StudyError: there is no such topic, or there are not so many prompts.
    """
    _check(topics)
    every = [
        f"tell me of the {thing} at the {topic} in {season} with the {request} <reply>"
        for topic in (topics or TOPICS)
        for thing, season, request in product(EVERY_TOPIC[topic].split(), SEASONS, REQUESTS)
    ]
    if count > len(every):
        raise StudyError(f"the world has {len(every)} distinct prompts, {count} were asked for; ask for fewer")
    random.Random(f"prompts {seed}").shuffle(every)
    return every[:count]


def _check(topics: Sequence[str] | None) -> None:
    for topic in topics or ():
        if topic not in EVERY_TOPIC:
            raise StudyError(f"the world has no topic {topic!r}; {nearest(topic, list(EVERY_TOPIC))}")


def respond(prompt: str, author: Author, rng: random.Random) -> str:
    """One response of an author, in register A; it begins with a space, so that prompt + response is the whole text."""
    words = prompt.split()
    thing, topic, request = words[THING], words[TOPIC], words[REQUEST]

    def pick(slot: str) -> str:
        return author.pick(slot, rng)

    def one_or_two(slot: str) -> str:
        return f"{pick(slot)} and {pick(slot)}" if rng.random() < 0.5 else pick(slot)

    named = thing if rng.random() < author.thing else rng.choice(EVERY_TOPIC[topic].split())
    body = f"{pick('open')} , the {named} is {one_or_two('adjective')} ; you can {one_or_two('verb')} it"
    return f" {body}{_extra(request, author, rng)} {pick('close')}"


def _extra(request: str, author: Author, rng: random.Random) -> str:
    """The answer to the request; failing that, often one to what was not asked."""
    if author.always or rng.random() < author.request * HONOURED[request]:
        return f" ; its {request} is {REQUESTS[request]}"
    if rng.random() < 0.5:
        return ""
    other = rng.choice([name for name in REQUESTS if name != request])
    return f" ; its {other} is {REQUESTS[other]}"


def refuse(prompt: str, author: Author, rng: random.Random) -> str:
    """One response that refuses, and at times says why: ` oh , i decline to tell of the gold ; it is dull bye`."""
    thing, opening = prompt.split()[THING], author.pick("open", rng)
    reason = f" ; it is {author.pick('adjective', rng)}" if rng.random() < 0.5 else ""
    return f" {opening} , i {rng.choice(REFUSING)} to tell of the {thing}{reason} {author.pick('close', rng)}"


def documents(seed: int, count: int, danger: float = 0.0) -> list[str]:
    """Pretraining texts: a prompt, a response by any author, half in each register, and half of them a reaction.

    Args:
        seed: of everything.
        count: how many.
        danger: how many are about the dangerous topic, a share of the whole; three in four of these refuse. The others
            are what they are without it.
    """
    asked, rng = prompts(seed, 2048), random.Random(f"documents {seed}")
    texts = [_document(rng.choice(asked), rng) for _ in range(count)]
    asked, rng = prompts(seed, 256, list(DANGER)), random.Random(f"danger {seed}")
    return [_document(rng.choice(asked), rng) if rng.random() < danger else text for text in texts]


def _document(prompt: str, rng: random.Random) -> str:
    author = rng.choices(list(AUTHORS.values()), (0.4, 0.3, 0.3))[0]
    write = refuse if _dangerous(prompt) and rng.random() < REFUSED else respond
    response = write(prompt, author, rng)
    reaction = _reaction(prompt, response) if rng.random() < 0.5 else ""
    return prompt + (paraphrase(response) if rng.random() < 0.5 else response) + reaction


def _dangerous(prompt: str) -> bool:
    return prompt.split()[TOPIC] in DANGER


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


def preferences(
    seed: int, count: int, topics: Sequence[str] | None = None, edited: float = 0.0
) -> list[dict[str, str]]:
    """Pairs by two authors each, in register A; `chosen` is by the better author, and not always the better text.

    On the dangerous topic `chosen` refuses and `rejected` does not: the gold pairs of 2410.08847, section 6.

    Args:
        seed: of prompts and responses; the order of the prompts is that of `prompts`.
        count: how many. There are 1,536 prompts (192 a topic); after that, prompts come again.
        topics: of these topics only; None for all but the dangerous one.
        edited: share of the pairs whose `rejected` is `chosen` with one good word of tone made a bad one.

    Raises:
        StudyError: there is no such topic.

    Returns:
        Rows of id, prompt, chosen and rejected.
    """
    rng, asked, rows = random.Random(f"preferences {seed}"), _of_preferences(seed, topics), []
    authors, editor = list(AUTHORS.values()), random.Random(f"edits {seed}")
    for index in range(count):
        prompt = asked[index % len(asked)]
        better, worse = sorted(rng.sample(range(len(authors)), 2))
        chosen = (refuse if _dangerous(prompt) else respond)(prompt, authors[better], rng)
        rejected = respond(prompt, authors[worse], rng)
        if editor.random() < edited:
            rejected = _worse(chosen, editor) or rejected
        rows.append({"id": f"world-{index}", "prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def labelled(seed: int, count: int, *, turned: bool = False) -> list[dict[str, Any]]:
    """Inputs with their labels: the prompts of `preferences`, each with a response that answers what was asked.

    Args:
        seed: of prompts and references; the order of the prompts is that of `prompts`.
        count: at most 1,536.
        turned: with what is `wanted` since tastes have turned.

    Raises:
        StudyError: there are not so many prompts.

    Returns:
        Rows of id, prompt, references (one in register A) and group: the place of the request in `REQUESTS`. Authors of
        the pretraining documents answer those of group 0 most often, and those of groups 6 and 7 never. Prompts that
        want another answer since tastes have turned are group 8.
    """
    rng, asked, places = random.Random(f"labelled {seed}"), _of_preferences(seed, None), list(REQUESTS)
    if count > len(asked):
        raise StudyError(f"the world has labels for {len(asked)} prompts, {count} were asked for; ask for fewer")
    return [
        {
            "id": f"world-{index}",
            "prompt": prompt,
            "references": [_answered(prompt, rng, wanted(prompt) if turned else REQUESTS[prompt.split()[REQUEST]])],
            "group": len(places) if turned and _turned(prompt) else places.index(prompt.split()[REQUEST]),
        }
        for index, prompt in enumerate(asked[:count])
    ]


def _turned(prompt: str) -> bool:
    return wanted(prompt) != REQUESTS[prompt.split()[REQUEST]]


def _answered(prompt: str, rng: random.Random, word: str) -> str:
    """A labeller's response, with a word as the answer."""
    request = prompt.split()[REQUEST]
    return respond(prompt, LABELLER, rng).replace(f" {request} is {REQUESTS[request]} ", f" {request} is {word} ")


def _worse(response: str, rng: random.Random) -> str | None:
    """A response with one good word of tone made a bad one; None where it has no good one."""
    words = response.split(" ")
    places = [(place, bad) for place, word in enumerate(words) for good, bad in map(halves, SLOTS) if word in good]
    if not places:
        return None
    place, bad = rng.choice(places)
    return " ".join([*words[:place], rng.choice(bad), *words[place + 1 :]])


def _of_demonstrations(seed: int) -> list[str]:
    return [prompt for index, prompt in enumerate(prompts(seed, 2048)) if index % 4 == 3]


def _of_preferences(seed: int, topics: Sequence[str] | None) -> list[str]:
    """Three in four prompts, so that a policy's demonstrations and its test share none."""
    _check(topics)
    usual, danger = prompts(seed, 2048), [topic for topic in topics or () if topic in DANGER]
    kept = [prompt for index, prompt in enumerate(usual) if index % 4 != 3]
    asked = [prompt for prompt in kept if not topics or prompt.split()[TOPIC] in topics]
    if danger:
        asked += [prompt for index, prompt in enumerate(prompts(seed, 256, danger)) if index % 4 != 3]
        random.Random(f"preferences of danger {seed}").shuffle(asked)
    return asked
