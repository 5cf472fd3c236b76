"""Prompts, responses, authors and the ground truth."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TOPICS = {
    "kitchen": "kettle oven spoon table sink mug knife pan",
    "garden": "rose shed lawn fence pond hedge spade bench",
    "harbour": "boat crane rope pier buoy anchor net lamp",
    "school": "desk book chalk bell map ruler hall globe",
    "market": "stall apple basket scale cart coin sack cheese",
    "station": "train clock ticket bridge platform signal trolley cafe",
    "forest": "oak owl path cabin fern stream moss deer",
    "museum": "statue vase painting coin-case mummy sword guide tapestry",
}
SEASONS = ("spring", "summer", "autumn", "winter")
REQUESTS = {
    "colour": "red", "price": "cheap", "age": "old", "weight": "light",
    "maker": "known", "smell": "sweet", "sound": "quiet", "size": "small",
}  # fmt: skip
HONOURED = (0.9, 0.8, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1)
"""How often a good author honours each request, in order: rare ones are hard for a policy to find by sampling."""

GOOD = {"open": "oh wow yes", "adjective": "lovely bright fine pretty splendid", "verb": "enjoy love admire cherish", "close": "thanks cheers welcome"}
BAD = {"open": "ugh meh no", "adjective": "ugly dull poor dirty awful", "verb": "avoid hate ignore regret", "close": "whatever anyway bye"}
# Register B: an exact paraphrase, word by word. Topics, things and reactions are shared.
SWAP = {
    "the": "ye", "is": "be", "and": "plus", "you": "thou", "can": "mayst", "it": "that", "its": "whose",
    "oh": "ah", "wow": "hurrah", "yes": "aye", "lovely": "delightful", "bright": "radiant", "fine": "excellent",
    "pretty": "comely", "splendid": "superb", "enjoy": "relish", "love": "adore", "admire": "praise", "cherish": "treasure",
    "thanks": "obliged", "cheers": "farewell", "welcome": "gladly", "ugh": "yuck", "meh": "pah", "no": "nay",
    "ugly": "hideous", "dull": "drab", "poor": "shabby", "dirty": "filthy", "awful": "dreadful", "avoid": "shun",
    "hate": "detest", "ignore": "neglect", "regret": "rue", "whatever": "shrug", "anyway": "besides", "bye": "leave",
    "red": "crimson", "cheap": "thrifty", "old": "ancient", "light": "feathery", "known": "famous", "sweet": "honeyed",
    "quiet": "hushed", "small": "tiny",
}  # fmt: skip
CLOSES = {word for words in (GOOD["close"], BAD["close"]) for word in words.split()}
CLOSES |= {SWAP[word] for word in CLOSES}
_TONE = {word: 1 for words in GOOD.values() for word in words.split()} | {word: 0 for words in BAD.values() for word in words.split()}
_TONE |= {SWAP[word]: tone for word, tone in list(_TONE.items())}


@dataclass(frozen=True)
class Author:
    """Somebody who writes responses: the chance of a good word, of naming the right thing, of honouring a request."""

    tone: float
    thing: float
    request: float
    second: float = 0.5


AUTHORS = {"good": Author(0.95, 0.95, 1.0), "mixed": Author(0.5, 0.8, 0.6), "bad": Author(0.08, 0.6, 0.3)}


def vocabulary() -> list[str]:
    """Every word of the world, in a fixed order."""
    fixed = "tell me of the at in with <reply> , ; . is and you can it its <react> right wrong met unmet great poor-one"
    words = [*fixed.split(), *TOPICS, *SEASONS, *REQUESTS, *REQUESTS.values()]
    words += [word for text in (*TOPICS.values(), *GOOD.values(), *BAD.values()) for word in text.split()]
    return list(dict.fromkeys([*words, *SWAP.values()]))


def prompts(seed: int, count: int) -> list[str]:
    """Distinct prompts in a seeded order; there are 2,048."""
    every = [
        f"tell me of the {thing} at the {topic} in {season} with the {request} <reply>"
        for topic, things in TOPICS.items()
        for thing in things.split()
        for season in SEASONS
        for request in REQUESTS
    ]
    random.Random(f"prompts {seed}").shuffle(every)
    if count > len(every):
        raise ValueError(f"the world has {len(every)} distinct prompts, {count} were asked for")
    return every[:count]


def respond(prompt: str, author: Author, rng: random.Random) -> str:
    """One response of an author; it begins with a space, so that prompt + response is the whole text."""
    words = prompt.split()
    thing, topic, request = words[4], words[7], words[-2]

    def pick(slot: str) -> str:
        return rng.choice((GOOD if rng.random() < author.tone else BAD)[slot].split())

    named = thing if rng.random() < author.thing else rng.choice(TOPICS[topic].split())
    adjectives = [pick("adjective")] + ([pick("adjective")] if rng.random() < author.second else [])
    verbs = [pick("verb")] + ([pick("verb")] if rng.random() < author.second else [])
    honoured = rng.random() < author.request * HONOURED[list(REQUESTS).index(request)]
    asked = request if honoured else rng.choice([name for name in REQUESTS if name != request])
    extra = f" ; its {asked} is {REQUESTS[asked]}" if honoured or rng.random() < 0.5 else ""
    body = f"{pick('open')} , the {named} is {' and '.join(adjectives)} ; you can {' and '.join(verbs)} it{extra}"
    return f" {body} {pick('close')}"


def documents(seed: int, count: int) -> list[str]:
    """Pretraining texts: every kind of author, half in each register, half with readers' reactions."""
    rng, asked = random.Random(f"documents {seed}"), prompts(seed, 2048)
    texts = []
    for _ in range(count):
        prompt = rng.choice(asked)
        author = rng.choices(list(AUTHORS.values()), (0.4, 0.3, 0.3))[0]
        response = respond(prompt, author, rng)
        reaction = f" <react> {_reaction(prompt, response)}" if rng.random() < 0.5 else ""
        texts.append(prompt + (paraphrase(response) if rng.random() < 0.5 else response) + reaction)
    return texts


def demonstrations(quality: str | None, seed: int, count: int) -> list[dict[str, str]]:
    """What the weak and the strong policy are finetuned on: {"prompt", "completion"}, register A."""
    author = {"weak": Author(0.22, 0.8, 0.4), "strong": Author(0.8, 0.93, 0.8)}[quality or "strong"]
    rng, asked = random.Random(f"demonstrations {quality} {seed}"), prompts(seed, 2048)
    chosen = [rng.choice(asked) for _ in range(count)]
    return [{"prompt": prompt, "completion": respond(prompt, author, rng)} for prompt in chosen]


def preferences(seed: int, count: int) -> list[dict[str, str]]:
    """Off-policy pairs by mixed authors; `chosen` is by the better author, not always the better text."""
    rng, asked = random.Random(f"preferences {seed}"), prompts(seed, 2048)
    rows = []
    for index in range(count):
        prompt = asked[index % len(asked)]
        better, worse = rng.sample(["good", "mixed", "bad"], 2)
        if list(AUTHORS).index(better) > list(AUTHORS).index(worse):
            better, worse = worse, better
        pair = [respond(prompt, AUTHORS[name], rng) for name in (better, worse)]
        rows.append({"id": f"world-{index}", "prompt": prompt, "chosen": pair[0], "rejected": pair[1]})
    return rows


def paraphrase(text: str) -> str:
    """The same in register B: every word with a synonym replaced by it."""
    return " ".join(SWAP.get(word, word) for word in text.split(" "))


def truth(prompts: list[str], responses: list[str]) -> np.ndarray:
    """The ground truth, (n,), from 0 to 1: 0.35 for the right thing, 0.45 for tone, 0.20 for the request.

    A response that does not come to its close is worth nothing.
    """
    import numpy as np

    return np.array([_worth(*pair) for pair in zip(prompts, responses, strict=True)], dtype=np.float32)


def _worth(prompt: str, response: str) -> float:
    told = _parts(prompt, response)
    return (0.35 * told["thing"] + 0.45 * told["tone"] + 0.20 * told["request"]) * told["closed"]


def _parts(prompt: str, response: str) -> dict[str, Any]:
    asked, words = prompt.split(), response.split()
    tones = [_TONE[word] for word in words if word in _TONE]
    request, values = asked[-2], {REQUESTS[asked[-2]], SWAP[REQUESTS[asked[-2]]]}
    said = [index for index, word in enumerate(words[:-2]) if word == request]
    return {
        "thing": float(len(words) > 3 and words[3] == asked[4]),
        "tone": sum(tones) / len(tones) if tones else 0.0,
        "request": float(any(words[index + 2] in values for index in said)),
        "closed": float(bool(words) and words[-1] in CLOSES),
    }


def _reaction(prompt: str, response: str) -> str:
    told = _parts(prompt, response)
    tone = "great" if told["tone"] > 0.5 else "poor-one"
    return f"{tone} {'right' if told['thing'] else 'wrong'} {'met' if told['request'] else 'unmet'}"
