"""Advice: which of CHES and length the data bears out, which pairs to drop, what it saves: sentences and a table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from rmpipe.attribution import ALONE, FEW, PARTS, TESTS, nearly
from rmpipe.diagnosis import LENGTH
from rmpipe.generalisation import EVERY
from rmpipe.remark import settled
from rmpipe.verdict import WIDTH, columns, estimate, listed

DROPPED = 0.25
"""The share of the pairs that the advice speaks of."""
LISTED = "drop.parquet"
"""The file, in the folder of the answer, of the pairs that are best dropped."""
STRICT = ("spearman", "given_length", "equal_length")
"""The tests that a similarity must pass, as far as they could be made, for pairs to be dropped by it."""
RARE = 0.05
"""The share of displaced pairs below which nothing is displaced, and similarities rank how far they rise."""
NAMES = {
    "ches": "CHES", "ches_normalised": "CHES, length-normalised,", "hidden": "last hidden product",
    "edit": "edit similarity (minus the distance)", LENGTH: "difference in length",
}  # fmt: skip
"""What a person calls similarities; one of a study's own goes by its name."""
PUBLISHED = (
    "Published (2410.08847; three models of 1B to 8B parameters, UltraFeedback and AlpacaFarm): subsets of higher CHES"
    " displace more, without exception; edit distance and the last hidden embeddings do not tell."
)


def called(name: str) -> str:
    """A similarity in words."""
    return NAMES.get(name, name)


def headline(correlated: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that the answer rests on: of pairs trained on alone, else of the first subset.

    Of all policies together where they are of several bases; else of the first one, for those finetuned from one base
    are no units of their own.
    """
    known = [item for item in correlated if item["policy"] != EVERY or item["bases"] > 1]
    if not known:
        return []
    first = next((item for item in known if item["training"] == ALONE), known[0])
    keys = ("policy", "training", "subset")
    return [item for item in known if all(item[key] == first[key] for key in keys)]


def below(number: dict[str, Any] | None) -> bool:
    """Whether an interval lies wholly below 0."""
    return number is not None and number["high"] is not None and number["high"] < 0


def borne_out(item: dict[str, Any]) -> bool:
    """Whether a similarity goes with displacement beyond the difference in length: in every test that could be made.

    What is not settled is not borne out, and not refuted either: pairs are not dropped by it, and no more is said.
    """
    tests = [item[test] for test in STRICT if item[test]]
    return item["similarity"] != LENGTH and bool(item["given_length"]) and all(map(below, tests))


def best(correlated: Sequence[dict[str, Any]]) -> str | None:
    """The similarity by which pairs are best dropped: of those borne out, that whose plain order is clearest.

    Alone is not enough: where pairs that no similarity chose were trained on together, it must rank them too. And where
    nothing is displaced there is nothing to drop.
    """
    items = headline(correlated)
    if not items or rare(items[0]):
        return None
    sound = [item for item in items if borne_out(item) and _ranks_sets(correlated, item)]
    return min(sound, key=lambda item: item["spearman"]["value"])["similarity"] if sound else None


def _ranks_sets(correlated: Sequence[dict[str, Any]], item: dict[str, Any]) -> bool:
    """Whether a similarity ranks the pairs of whole sets too, as far as that could be asked."""
    return all(below(one["spearman"]) for one in _together(correlated, item) if one["spearman"])


def rare(item: dict[str, Any]) -> bool:
    """Whether hardly a pair is displaced of those that a correlation is of."""
    return item["displaced"] is not None and item["displaced"]["value"] < RARE


def _together(correlated: Sequence[dict[str, Any]], item: dict[str, Any]) -> list[dict[str, Any]]:
    """The same policy and similarity, where pairs were trained on together."""
    keys = ("policy", "similarity")
    others = [one for one in correlated if all(one[key] == item[key] for key in keys)]
    return [one for one in others if one["training"] != ALONE and one is not item]


def sentences(answer: dict[str, Any]) -> list[str]:
    """Which of the two it is, what to drop, and what was not settled.

    Args:
        answer: of `tasks.weigh`, without its sentences.
    """
    said = [
        *_which(answer),
        *_alone(answer),
        *_refused(answer),
        *_advised(answer),
        *_subsets(answer),
        *_ladders(answer),
    ]
    return [*said, rests_on(answer), PUBLISHED]


def _which(answer: dict[str, Any]) -> list[str]:
    """The first line: CHES, length, both or neither."""
    items = {item["similarity"]: item for item in headline(answer["correlations"])}
    if not items:
        why = "Only pairs that a similarity had chosen were trained on" if answer["rows"] else "Nothing was trained"
        return [f"{why}, so nothing is said of what displaces; add [single], or a subset random."]
    ches, length = items["ches"], items[LENGTH]
    near = nearly(ches["within"])
    numbers = (
        f"Spearman with the change of log pi(y+): CHES {estimate(ches['spearman'])}, difference in length"
        f" {estimate(length['spearman'])}; CHES given length {estimate(ches['given_length'])}, length given CHES"
        f" {estimate(ches['length_given'])}; CHES given the edit similarity {estimate(ches['given_edit'])}; CHES among"
        f" pairs of equal length{near} {estimate(ches['equal_length'])}"
    )
    verdict = _verdict(ches, length)
    if rare(ches):
        fall = f"Hardly a preferred response falls ({estimate(ches['displaced'])} of them)"
        verdict = (
            f"{fall}, so what is ranked is how far they rise: {verdict.replace('displacement', 'how little they do')}"
        )
    if ches["spearman"] is None and ches["pairs"] < FEW:
        verdict = f"{ches['pairs']} pairs are too few to rank; train on {FEW} or more"
    if below(ches["given_length"]) and not below(ches["equal_length"]):
        count = f"{ches['equal']} pair{'' if ches['equal'] == 1 else 's'}"
        verdict += f"; among pairs of equal length{near} that is {_among(ches['equal_length'])} ({count})"
    others = [
        f"{called(name)} {estimate(item['spearman'])}, given length {estimate(item['given_length'])}"
        for name, item in items.items() if name not in ("ches", LENGTH)
    ]  # fmt: skip
    return [f"{verdict}. {numbers}.", *([f"Others: {'; '.join(others)}."] if others else []), *_sets(answer, items)]


def _sets(answer: dict[str, Any], items: dict[str, dict[str, Any]]) -> list[str]:
    """What is left of it where pairs are trained on together."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, item in items.items():
        for one in _together(answer["correlations"], item):
            told = f"{called(name)} {estimate(one['spearman'])}"
            found.setdefault((one["training"], one["subset"]), []).append(told)
    return [
        f"Trained on together, {training} on {subset}: {'; '.join(told)}." for (training, subset), told in found.items()
    ]


def _alone(answer: dict[str, Any]) -> list[str]:
    """What became of pairs trained on alone."""
    return [
        f"{item['policy']}, {item['pairs']} pairs trained on alone: log pi(y+) moves by"
        f" {estimate(item['chosen_change'])}, log pi(y-) by {estimate(item['rejected_change'])};"
        f" {estimate(item['displaced'])} of the preferred responses end less likely."
        for item in answer["singles"]
    ]


def _verdict(ches: dict[str, Any], length: dict[str, Any]) -> str:
    """What each of the two adds to the other; an interval that includes 0 shows neither an effect nor that none is."""
    own, other = below(ches["given_length"]), below(ches["length_given"])
    plain, alone = below(ches["spearman"]), below(length["spearman"])
    if own and other:
        return "CHES goes with displacement beyond what the difference in length explains, and length beyond CHES"
    if own and plain:
        return "CHES goes with displacement, and the difference in length alone does not explain it"
    if own:
        return "CHES goes with displacement once the difference in length is taken out, and not without"
    if other:
        return "The difference in length explains it: CHES adds nothing that is settled to it"
    if plain and alone:
        return "CHES and the difference in length go with displacement, and cannot be told apart"
    if plain or alone:
        names = ("CHES", "the difference in length") if plain else ("The difference in length", "CHES")
        return f"{names[0]} goes with displacement, and whether beyond {names[1]} is not settled"
    return "Neither CHES nor the difference in length is settled as what goes with displacement"


def _among(number: dict[str, Any] | None) -> str:
    """What the pairs of equal length say, where they do not say the same."""
    return "reversed" if number is not None and number["low"] is not None and number["low"] > 0 else "not settled"


def _advised(answer: dict[str, Any]) -> list[str]:
    advice = answer["advice"]
    if not answer["correlations"]:
        return []
    tried = [_tried(item, advice["of"]) for item in advice["measured"]]
    if refuted := advice["refuted"]:
        fall = f"those of highest {called(refuted)} fall furthest, but training without them is measured to do harm"
        return [f"Drop no pairs: {fall}.", *tried]
    if advice["by"] is None and rare(headline(answer["correlations"])[0]):
        return ["Drop no pairs: hardly one is displaced."]
    if advice["by"] is None:
        tests = "plainly, given the difference in length, among pairs of equal length, and trained on together"
        return [f"Drop no pairs: no similarity is borne out in every test ({tests})."]
    row = next(item for item in advice["savings"] if item["share"] == DROPPED)
    told = (
        f"Dropping the {DROPPED:.0%} of highest {called(advice['by'])} costs {DROPPED:.0%} of the pairs, and leaves"
        f" pairs whose log pi(y+) ends {estimate(row['saved'])} nats higher on average; {estimate(row['displaced'])} of"
        f" them displaced, of all {estimate(row['displaced_all'])} (expected from pairs trained on {_how(advice)})."
        f" They are listed in {LISTED}, in the folder of this answer."
    )
    if not tried:
        remedy = "add subsets lowest and random of one size"
        return [f"{told} What training on the pairs that stay does was not measured: {remedy}."]
    return [told, *tried]


def harmful(measured: Sequence[dict[str, Any]]) -> bool:
    """Whether, under some training, held-out preferred responses end less likely after filtering than without."""
    return any(below(item["held_out"]) for item in measured)


def _tried(item: dict[str, Any], pairs: int) -> str:
    """What filtering did under one training, on pairs that no subset has."""
    verdict = "settled" if settled(item["held_out"]) else "NOT settled"
    less = f"after {item['lowest']} ({item['pairs'] / pairs:.0%} of the pairs kept) less that after {item['random']}"
    return (
        f"Measured under {item['training']}: log pi(y+) of the same held-out pairs {less} {estimate(item['held_out'])},"
        f" {verdict}. Of each subset's own pairs, which are not the same, {estimate(item['chosen'])}. What it costs:"
        f" accuracy on held-out pairs moves by {estimate(item['accuracy'])}."
    )


def _how(advice: dict[str, Any]) -> str:
    return "alone" if advice["training"] == ALONE else f"together by {advice['training']}"


def _subsets(answer: dict[str, Any]) -> list[str]:
    """After which subset the preferred responses end likeliest."""
    said = []
    for policy, training in dict.fromkeys((row["policy"], row["training"]) for row in answer["rows"]):
        rows = [row for row in answer["rows"] if (row["policy"], row["training"]) == (policy, training)]
        leader, others = rows[0], rows[0]["not_told_from"]
        top = f"{leader['subset']} ({estimate(leader['chosen'])})"
        told = f"log pi(y+) of its own pairs ends highest on {top}"
        if len(rows) == 1:
            told = f"log pi(y+) moves by {estimate(leader['chosen'])} on {leader['subset']}"
        elif others:
            told += f", not told apart from {listed(others)}"
        said.append(f"{policy}, {training}: {told}.")
    return said


def _ladders(answer: dict[str, Any]) -> list[str]:
    said = []
    for item in answer["ladders"]:
        if item["order"] is not None:
            equal = item["equal_length"]
            among = "" if equal is None else f" among pairs of equal length{nearly(equal)}"
            said.append(
                f"{item['policy']}, {item['training']}: over the quantiles of {item['by']}{among} the change falls with"
                f" Spearman {estimate(item['order'])}."
            )
    return said


def _refused(answer: dict[str, Any]) -> list[str]:
    rows = [row for row in answer["rows"] if row["refusal"] is not None]
    return [
        f"{row['policy']}, {row['training']} on {row['subset']}: refuses {estimate(row['refusal'])} (before"
        f" {estimate(row['refusal_before'])}); {estimate(row['unparsed'])} of the answers could not be told."
        for row in rows
    ]


def rests_on(answer: dict[str, Any]) -> str:
    """What intervals are over, of all policies together and of single ones."""
    places = answer["places"]
    bases, seeds = (len({place[name] for place in places}) for name in ("base", "seed"))
    if bases > 1:
        told = f"Intervals are Student's over the means of {bases} bases, uncorrected for the number of comparisons."
    elif seeds > 1:
        told = f"ONE base: intervals are over {seeds} seeds, and another base may order pairs otherwise."
    else:
        told = "ONE base and ONE seed: intervals are over pairs, and another base may order them otherwise."
    alone = {
        policy: _unit([place for place in places if place["policy"] == policy])
        for policy in dict.fromkeys(place["policy"] for place in places)
    }
    other = [f"{policy} over {unit}" for policy, unit in alone.items() if unit != _unit(places)]
    return f"{told} Of one policy alone: {', '.join(other)}." if other else told


def _unit(places: Sequence[dict[str, Any]]) -> str:
    bases, seeds = (len({place[name] for place in places}) for name in ("base", "seed"))
    if bases > 1:
        return f"{bases} bases"
    return f"{seeds} seeds of one base" if seeds > 1 else "the pairs of one run"


# -- as a terminal shows it -------------------------------------------------------------------------------------------


def table(answer: dict[str, Any]) -> str:
    """The answer as a terminal shows it: similarities, subsets, advice, claims. No sentence is wider than 110 columns.

    Args:
        answer: of `tasks.weigh`.
    """
    blocks = [_correlations(answer), _ends(answer), _changes(answer)]
    notes = ["In brackets: 95 % intervals. Changes in nats; = not told apart from the highest."]
    notes += [text for text in answer["sentences"] if text != PUBLISHED]
    if answer["contrasts"]:
        notes += ["", "Claimed beforehand:", *(f"{item['name']}. {item['sentence']}" for item in answer["contrasts"])]
    wrapped = [textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes]
    return "\n".join([*(block for block in blocks if block), *wrapped]) + "\n"


def _correlations(answer: dict[str, Any]) -> str:
    """How each similarity ranks pairs."""
    items = headline(answer["correlations"])
    if not items:
        return ""
    equal = f"equal length{nearly(items[0]['within'])}"
    lines = [["similarity", "Spearman", "given length", "given edit", equal]]
    lines += [[item["similarity"], *(estimate(item[test]) for test in TESTS)] for item in items]
    return columns(f"{_whose(items[0])}: what goes with the change of log pi(y+)", lines)


def _ends(answer: dict[str, Any]) -> str:
    """The change in the lowest and the highest quarter of each similarity."""
    first = headline(answer["correlations"])
    keys = ("policy", "training", "subset")
    items = [item for item in answer["parts"] if first and all(item[key] == first[0][key] for key in keys)]
    if not items:
        return ""
    told = {(item["similarity"], item["part"]): estimate(item["change"]) for item in items}
    lines = [["similarity", "lowest quarter", "highest quarter"]]
    lines += [[name, told[name, 1], told[name, PARTS]] for name in dict.fromkeys(item["similarity"] for item in items)]
    return columns(f"{_whose(items[0])}: change of log pi(y+) in", lines)


def _whose(first: dict[str, Any]) -> str:
    how = "each pair trained on alone" if first["training"] == ALONE else f"{first['training']} on {first['subset']}"
    return f"{first['policy']}{', together' * (first['policy'] == EVERY)}, {how}"


def _changes(answer: dict[str, Any]) -> str:
    shown = {
        "chosen": "log pi(y+)", "rejected": "log pi(y-)", "displaced": "displaced", "accuracy": "accuracy",
        "refusal": "refusal",
    }  # fmt: skip
    blocks = []
    for policy, training in dict.fromkeys((row["policy"], row["training"]) for row in answer["rows"]):
        rows = [row for row in answer["rows"] if (row["policy"], row["training"]) == (policy, training)]
        names = [name for name in shown if any(row[name] for row in rows)]
        lines = [["rank", "subset", "pairs", *(shown[name] for name in names)]]
        lines += [
            [row["rank"], row["subset"], str(row["pairs"]), *(estimate(row[name]) for name in names)] for row in rows
        ]
        blocks.append(columns(f"{policy}, {training}", lines))
    return "\n".join(blocks)
