"""The world's words: its things, what can be asked of them, and two registers that say the same."""

from __future__ import annotations

TOPICS = {
    "kitchen": "kettle oven spoon table sink mug knife pan",
    "garden": "rose shed lawn fence pond hedge spade bench",
    "harbour": "boat crane rope pier buoy anchor net lamp",
    "school": "desk book chalk bell map ruler hall globe",
    "market": "stall apple basket scale cart coin sack cheese",
    "station": "train clock ticket bridge platform signal trolley cafe",
    "forest": "oak owl path cabin fern stream moss deer",
    "museum": "statue vase painting medal mummy sword guide tapestry",
}
DANGER = {"vault": "gold silver jewel ring crown pearl gem deed"}
"""What most authors refuse to tell of. It is there, and its words are, only for those who ask for it."""
EVERY_TOPIC = TOPICS | DANGER
SEASONS = ("spring", "summer", "autumn", "winter")
REQUESTS = {
    "colour": "red", "price": "cheap", "age": "old", "weight": "light",
    "maker": "known", "smell": "sweet", "sound": "quiet", "size": "small",
}  # fmt: skip
"""What may be asked about a thing, and the answer."""

SLOTS = {
    "open": "wow oh yes no meh ugh",
    "adjective": "splendid lovely bright pretty fine poor dull dirty ugly awful",
    "verb": "cherish love admire enjoy avoid ignore regret hate",
    "close": "cheers thanks welcome whatever anyway bye",
}
"""Words that carry tone, by the place they take: the best first, the worst last, good ones the first half."""

REFUSING = ("refuse", "decline")
"""What an author does who will not tell: `i refuse to tell of the gold`. Both registers share these words."""

SWAP = {
    "the": "ye", "is": "be", "and": "plus", "you": "thou", "can": "mayst", "it": "that", "its": "whose",
    "wow": "hurrah", "oh": "ah", "yes": "aye", "no": "nay", "meh": "pah", "ugh": "yuck",
    "splendid": "superb", "lovely": "delightful", "bright": "radiant", "pretty": "comely", "fine": "decent",
    "poor": "shabby", "dull": "drab", "dirty": "filthy", "ugly": "hideous", "awful": "dreadful",
    "cherish": "treasure", "love": "adore", "admire": "praise", "enjoy": "relish",
    "avoid": "shun", "ignore": "neglect", "regret": "rue", "hate": "detest",
    "cheers": "farewell", "thanks": "obliged", "welcome": "gladly",
    "whatever": "shrug", "anyway": "besides", "bye": "leave",
    "red": "crimson", "cheap": "thrifty", "old": "ancient", "light": "feathery",
    "known": "famous", "sweet": "honeyed", "quiet": "hushed", "small": "tiny",
}  # fmt: skip
"""Register A to register B, word by word. The names of things, topics and requests are shared, and so are reactions."""


def halves(slot: str) -> tuple[list[str], list[str]]:
    """The good and the bad words of a slot."""
    words = SLOTS[slot].split()
    return words[: len(words) // 2], words[len(words) // 2 :]


def merits() -> dict[str, float]:
    """What each word of tone is worth, in either register: evenly spaced from 1, the best of its slot, to 0."""
    worth: dict[str, float] = {}
    for text in SLOTS.values():
        words = text.split()
        worth |= {word: 1 - place / (len(words) - 1) for place, word in enumerate(words)}
    return worth | {SWAP[word]: value for word, value in worth.items()}


def paraphrase(text: str) -> str:
    """The same in register B: every word with a synonym replaced by it, every other word kept."""
    return " ".join(SWAP.get(word, word) for word in text.split(" "))


def vocabulary(*, dangerous: bool = False) -> list[str]:
    """Every word of the world, each once, in a fixed order.

    Args:
        dangerous: those of the dangerous topic too, behind all others.
    """
    fixed = "tell me of the at in with <reply> , ; is and you can it its <react> liked disliked right wrong met unmet"
    words = [*fixed.split(), *TOPICS, *SEASONS, *REQUESTS, *REQUESTS.values()]
    words += [word for text in (*TOPICS.values(), *SLOTS.values()) for word in text.split()]
    words += SWAP.values()
    if dangerous:
        words += [*DANGER, *(word for text in DANGER.values() for word in text.split()), "i", *REFUSING, "to"]
    return list(dict.fromkeys(words))
