"""The page of an answer to `displace`: what goes with displacement, which pairs to drop, figures, and where from.

A place is a policy, or all of them together; what is shown of it is of training on each pair alone, or of one training
on one subset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rmpipe import advice, attribution, citation, diagnosed, figure, frame, legend, remark
from rmpipe.attribution import ALONE, TESTS
from rmpipe.citation import cell, decimals, place
from rmpipe.generalisation import EVERY
from rmpipe.single import RANKED

if TYPE_CHECKING:
    import numpy as np
    from markupsafe import Markup

COLUMNS = {
    "chosen": ("log pi(y+)", "nats"), "rejected": ("log pi(y-)", "nats"), "displaced": ("Displaced", "share"),
    "fall": ("Largest fall", "nats"), "accuracy": ("Accuracy", ""), "held_out": ("log pi(y+), held out", "nats"),
    "held_out_accuracy": ("Accuracy, held out", ""), "kl": ("KL", "nats"), "tokens": ("Writes", "tokens"),
}  # fmt: skip
"""What is shown of a training on a subset, how the page calls it, and its unit."""
RELATED = {
    "spearman": "Spearman", "given_length": "Given length", "given_edit": "Given edit", "equal_length": "Equal length",
    "length_given": "Length given it", "by_base": "Drawing bases",
}  # fmt: skip
"""What the table shows of a similarity."""
MOVED = {"chosen_change": "log pi(y+)", "rejected_change": "log pi(y-)", "displaced": "Displaced"}
FELL = {"decrease": "Largest fall", "start": "From", "end": "To"}
"""Of the probability of the preferred response, on the way."""
STEADY = {"": "all", "_steady": "loss never rose"}
"""The pairs that falls are told of, by the ending of their numbers' names."""
GEOMETRY = {
    "chosen_norm": "|w+|", "rejected_norm": "|w\N{MINUS SIGN}|", "inner": "<w+, w\N{MINUS SIGN}>",
    "projection": "c = <w+, w\N{MINUS SIGN}> / |w+|", "excess": "|w+| \N{MINUS SIGN} c",
    "orthogonal": "|w\N{MINUS SIGN} \N{MINUS SIGN} c w+ / |w+||",
}  # fmt: skip
"""How the unembeddings of the two tokens of a pair lie to each other."""
REFUSED = {"refusal": "Refuses", "refusal_before": "Before", "unparsed": "Could not be told"}
CURVES = {
    ("trained", "chosen"): "preferred (y+), trained on", ("trained", "rejected"): "dispreferred (y-), trained on",
    ("held_out", "chosen"): "preferred (y+), held out", ("held_out", "rejected"): "dispreferred (y-), held out",
}  # fmt: skip
PARTS = ("lowest", "second", "third", "highest")
WIDEST = 2.5
"""How far an axis goes beyond the longest bar, for the sake of intervals."""
TOKENS = 5

Drawn = list[tuple[str, str, "Markup"]]
Key = tuple[str, str, str]
"""Policy, training and subset."""


def render(answer: dict[str, Any], address: str = "") -> str:
    """The page of an answer.

    Args:
        answer: of `tasks.weigh`.
        address: of that answer, where it has one.
    """
    ink = figure.colours(list(answer["subsets"]))
    related = [_related(answer, key) for key in _keys(answer["correlations"])]
    trained = [_trained(answer, where, ink) for where in _wheres(answer["rows"])]
    starts = tuple(f"{item['policy']}, {item['training']}" for item in trained)
    rests = advice.rests_on(answer)
    said = [text for text in answer["sentences"] if not text.startswith(starts) or not starts]
    first, *more = [text for text in said if text not in (rests, advice.PUBLISHED)]
    verdict, _, numbers = first.partition(". ")
    headline = advice.headline(answer["correlations"])
    html = frame.template("displaced.html").render(
        answer=answer,
        ranking=citation.RANKING,
        address=address,
        why=f"rmpipe why {address}" if address else f"rmpipe rank {answer['study']}",
        verdict=verdict.removesuffix("."),
        numbers=numbers,
        more=more,
        headline=place("from", *_key(headline[0])) if headline else citation.RANKING,
        related=related,
        ladders=[_ladder(answer, where) for where in _wheres(answer["ladders"])],
        trained=trained,
        singles=_singles(answer["singles"]),
        dropped=_texts(answer, answer["dropped"]),
        listed=advice.LISTED,
        samples=_samples(answer),
        tables=diagnosed.tables(answer["diagnoses"]),
        quantiles=diagnosed.COLUMNS,
        claims=_claims(answer),
        ink=ink,
        entries=_entries(answer),
        rests=rests,
        published=advice.PUBLISHED,
    )
    return citation.once(html)


def _key(item: dict[str, Any]) -> Key:
    return item["policy"], item["training"], item["subset"]


def _keys(items: Sequence[dict[str, Any]]) -> list[Key]:
    return list(dict.fromkeys(map(_key, items)))


def _wheres(items: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Policies and trainings, in their order."""
    return list(dict.fromkeys((item["policy"], item["training"]) for item in items))


def _place(policy: str) -> str:
    return f"{EVERY.capitalize()} together" if policy == EVERY else policy


def _title(policy: str, training: str, subset: str) -> str:
    return f"{_place(policy)}, {_how(training, subset)}"


def _how(training: str, subset: str) -> str:
    return "each pair trained on alone" if training == ALONE else f"{training} on {subset}"


# -- what goes with displacement --------------------------------------------------------------------------------------


def _related(answer: dict[str, Any], key: Key) -> dict[str, Any]:
    """How each similarity goes with what became of the pairs under one training."""
    items = [item for item in answer["correlations"] if _key(item) == key]
    parts = [item for item in answer["parts"] if _key(item) == key]
    target, first = place("from", *key), items[0]
    shown = [name for name in RELATED if any(item[name] for item in items)]
    lines = [{"name": item["similarity"], "cells": [cell(item[name], target) for name in shown]} for item in items]
    near = attribution.nearly(first["within"])
    heads = [RELATED[name] + near * (name == "equal_length") for name in shown]
    counts = f"{first['pairs']} pairs, {first['equal']} of them of equal length{near}"
    panels: Drawn = []
    for test, words in TESTS.items():
        known = [(item["similarity"], item[test]) for item in items if item[test]]
        axis = "Spearman" if test == "spearman" else f"Spearman, {RELATED[test].lower()}"
        if svg := figure.forest(known, axis, (-1.05, 1.05), _title(*key)):
            panels.append((words.capitalize() + near * (test == "equal_length"), svg, legend.ranked(known, target)))
    return {
        "title": _title(*key), "id": place("answer", *key), "columns": heads,
        "lines": lines, "panels": panels, "quarters": _quarters(parts, _title(*key), target),
        "counts": f"{counts}; {_rests(first)}{_fewer(items)}",
    }  # fmt: skip


def _rests(used: dict[str, int]) -> str:
    return f"{_many(used['runs'], 'run')} on {_many(used['bases'], 'base')}"


def _fewer(items: list[dict[str, Any]]) -> str:
    """Which numbers rest on fewer runs than the plain one of the first similarity, those left out having none."""
    whole, told = items[0]["used"]["spearman"], []
    for item in items:
        for test, used in item["used"].items():
            if item[test] and used != whole:
                told.append(f"{item['similarity']}, {RELATED[test].lower()}: {_rests(used)}")
    return f" ({'; '.join(told)})" if told else ""


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _quarters(parts: list[dict[str, Any]], where: str, target: str) -> Drawn:
    """A panel a similarity: the change in each quarter, all on one scale."""
    names = list(dict.fromkeys(item["similarity"] for item in parts))
    limits, drawn = _limits([item["change"] for item in parts]), []
    for name, colour in figure.colours(names).items():
        mine = [item for item in parts if item["similarity"] == name]
        shown = [(PARTS[item["part"] - 1], item["change"], colour, remark.settled(item["change"])) for item in mine]
        if svg := figure.bars(shown, f"change of log pi(y+), nats, by {name}", where, None, limits):
            drawn.append((name, svg, legend.quarters(mine, target)))
    return drawn


def _limits(numbers: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """An axis with 0, all values, and intervals as far as they leave the values to be seen."""
    most = WIDEST * max([abs(number["value"]) for number in numbers], default=1.0) or 1.0
    lows, highs = ([number["value"] if number[end] is None else number[end] for number in numbers]
                   for end in ("low", "high"))  # fmt: skip
    return max(-most, min([0.0, *lows]) * 1.05), min(most, max([0.0, *highs]) * 1.05)


def _ladder(answer: dict[str, Any], where: tuple[str, str]) -> tuple[str, str, Markup]:
    """The change over the quantiles of a similarity (2410.08847, Figure 2), each ladder a line."""
    items = [item for item in answer["ladders"] if (item["policy"], item["training"]) == where]
    names = [f"{item['by']}{_equal(item['equal_length'])}" for item in items]
    rungs = [[(rung["at"], rung["chosen"]) for rung in item["rungs"]] for item in items]
    lines, words = dict(zip(names, rungs, strict=True)), ("quantile of the similarity", "change of log pi(y+), nats")
    svg = figure.ladder(lines, figure.colours(names), *words, ", ".join(where))
    return f"{_place(where[0])}, {where[1]}", svg, legend.ladders(items, names)


# -- what training on subsets did -------------------------------------------------------------------------------------


def _trained(answer: dict[str, Any], where: tuple[str, str], ink: dict[str, str]) -> dict[str, Any]:
    """Everything of one policy under one training."""
    policy, training = where
    rows = [row for row in answer["rows"] if (row["policy"], row["training"]) == where]
    shown = [name for name in COLUMNS if any(row[name] for row in rows)]
    lines = []
    for row in rows:
        target = place("from", *_key(row))
        cells = [cell(counted(row["pairs"]), target, str), *(cell(row[name], target) for name in shown)]
        named = {"name": row["subset"], "rank": row["rank"], "rule": rule(answer["subsets"][row["subset"]])}
        lines.append({**named, "id": place("row", *_key(row)), "cells": cells})
    start = f"{policy}, {training}: "
    return {
        "policy": policy, "training": training, "title": f"{_place(policy)}, {training}",
        "columns": [("Pairs", ""), *(COLUMNS[name] for name in shown)], "lines": lines,
        "sentences": [text.removeprefix(start) for text in answer["sentences"] if text.startswith(start)],
        "curves": _curves(_mine(answer["curves"], where), where, ink),
        "gained": _gained(_mine(answer["gained"], where), where),
        "refused": _refused([row for row in rows if row["refusal"]], ink),
    }  # fmt: skip


def counted(number: int) -> dict[str, Any]:
    """A count as a number of a table."""
    return {"value": number, "low": None, "high": None}


def rule(table: dict[str, Any]) -> str:
    """How a subset is chosen, in words.

    Args:
        table: of `rmpipe.subset.Subset`, as JSON holds it.
    """
    size = f"{table['share']:.0%} of the pairs" if table.get("share") else _many(table.get("count") or 0, "pair")
    words = {
        "whole": "every pair", "random": f"{size}, drawn", "lowest": f"{size}, lowest {table.get('by')}",
        "highest": f"{size}, highest {table.get('by')}", "other": "other pairs",
        "quantile": f"{size} around the {table.get('at', 0):.0%} quantile of {table.get('by')}",
    }  # fmt: skip
    told = words.get(table["kind"], table["kind"].rpartition(":")[2])
    return told + _equal(table["equal_length"]).replace("equal", "of equal")


def _equal(within: float | None) -> str:
    """What is to be said of a rule that chooses among pairs of equal length."""
    return "" if within is None else f", equal length{attribution.nearly(within)}"


def _mine(items: Sequence[dict[str, Any]], where: tuple[str, str]) -> list[dict[str, Any]]:
    """The runs of a place."""
    return [item for item in items if item["training"] == where[1] and where[0] in (item["policy"], EVERY)]


def _curves(curves: list[dict[str, Any]], where: tuple[str, str], ink: dict[str, str]) -> Drawn:
    """A panel a side and set: a line a subset, all that they gained or lost since the beginning."""
    drawn = []
    for (name, side), words in CURVES.items():
        lines = {
            subset: _stacked([item for item in curves if item["subset"] == subset and name in item], name, side)
            for subset in ink
        }
        lines = {subset: pair for subset, pair in lines.items() if pair[1].size}
        if svg := figure.learning(lines, ink, f"{words}, nats", ", ".join(where), 0):
            drawn.append((words.capitalize(), svg, legend.curves(lines, where)))
    return drawn


def _stacked(curves: list[dict[str, Any]], name: str, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and changes of a subset's runs, (runs, looks) each."""
    import numpy as np

    shortest = min((len(item["steps"]) for item in curves), default=0)
    across, up = [item["steps"][-shortest:] for item in curves], [item[name][side][-shortest:] for item in curves]
    return np.array(across, dtype=float), np.array(up, dtype=float)


def _gained(items: list[dict[str, Any]], where: tuple[str, str]) -> list[dict[str, Any]]:
    """A line a subset: the tokens that gained most, the mean over runs; one counts nothing where it is not named."""
    lines = []
    for subset in dict.fromkeys(item["subset"] for item in items):
        mine, target = [item for item in items if item["subset"] == subset], place("from", *where, subset)
        told = {kind: _tokens([item[kind] for item in mine]) for kind in ("first", "everywhere")}
        first = [(token, decimals(value), target) for token, value in told["first"]]
        everywhere = [(token, remark.three(value), target) for token, value in told["everywhere"]]
        lines.append({"name": subset, "cells": [first, everywhere]})
    return lines


def _tokens(runs: list[list[Any]]) -> list[tuple[str, float]]:
    total: Counter[str] = Counter()
    for run in runs:
        total.update(dict(run))
    return [(token, value / len(runs)) for token, value in total.most_common(TOKENS)]


def _refused(rows: list[dict[str, Any]], ink: dict[str, str]) -> dict[str, Any] | None:
    """How often the policy refuses after each subset, beside how often it did before."""
    if not rows:
        return None
    shown = [(row["subset"], row["refusal"], ink[row["subset"]], True) for row in rows]
    before = rows[0]["refusal_before"]
    where = f"{rows[0]['policy']}, {rows[0]['training']}"
    svg = figure.bars(shown, "share refused", where, before and before["value"], (0, 1))
    lines = [
        {"name": row["subset"], "cells": [cell(row[name], place("from", *_key(row))) for name in REFUSED]}
        for row in rows
    ]
    return {"svg": svg, "caption": legend.refusals(rows), "columns": list(REFUSED.values()), "lines": lines}


# -- pairs alone, examples, claims ------------------------------------------------------------------------------------


def _singles(items: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Pairs trained on alone: what became of them, and the tokens that gained most at the first place."""
    if not items:
        return None
    lines, falls, tokens, ranks, geometry = [], [], [], [], []
    for item in items:
        target = place("from", item["policy"], ALONE, "")
        pairs = {ending: cell(counted(item[f"pairs{ending}"]), target, str) for ending in STEADY}
        moved = [cell(item[name], target, diagnosed.short) for name in MOVED]
        lines.append({"name": item["policy"], "cells": [pairs[""], *moved]})
        for ending, which in STEADY.items():
            fell = [cell(item[f"{name}{ending}"], target, diagnosed.short) for name in FELL]
            falls.append({"name": item["policy"], "which": which, "cells": [pairs[ending], *fell]})
        for look in item["gained"]:
            told = [(token, decimals(share), target) for token, share in look["tokens"]]
            tokens.append({"name": item["policy"], "step": look["step"], "cells": [told]})
        for look in item["ranks"]:
            cells = [cell(look[by], target, diagnosed.short) for by in RANKED]
            ranks.append({"name": item["policy"], "step": look["step"], "cells": cells})
        if any(item["unembedding"].values()):
            cells = [cell(item["unembedding"][name], target, diagnosed.short) for name in GEOMETRY]
            geometry.append({"name": item["policy"], "cells": cells})
    return {
        "columns": ["Pairs", *MOVED.values()], "lines": lines, "fell": ["Pairs", *FELL.values()], "falls": falls,
        "tokens": tokens, "ranked": [words.capitalize() for words in RANKED.values()], "ranks": ranks,
        "geometric": list(GEOMETRY.values()), "geometry": geometry,
    }  # fmt: skip


def _samples(answer: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Example pairs at either end of CHES."""
    ends = dict.fromkeys(item["end"] for item in answer["samples"])
    return {end: _texts(answer, [item for item in answer["samples"] if item["end"] == end]) for end in ends}


def _texts(answer: dict[str, Any], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pairs of the first policy and seed, with how alike and how long they are, and what training on each alone did."""
    policy = answer["policies"][0]
    similar, alone = place("from", "diagnose", policy), place("from", policy, ALONE, "")
    found = []
    for item in items:
        name = next(name for name in answer["similarities"] if name in item)
        told = {"by": "CHES" if name == "ches" else name, "value": diagnosed.short(item[name])}
        told |= {"value": citation.link(told["value"], similar), "length": diagnosed.longer(item["length"])}
        change = item.get("change")
        found.append(item | told | {"change": None if change is None else citation.link(change, alone)})
    return found


def _claims(answer: dict[str, Any]) -> dict[str, Any] | None:
    """The stated claims, each with what it was judged on, and forests of their numbers, which have two units."""
    items = answer["contrasts"]
    if not items:
        return None
    judged = [frame.judged(item, _judged_on(item, answer)) for item in items]
    order = ("rank correlation", "difference, nats")
    units = [order["similarity" not in item] for item in items]
    return {"judged": judged, "forests": remark.forests(items, [told["mark"] for told in judged], units, order)}


def _judged_on(item: dict[str, Any], answer: dict[str, Any]) -> list[tuple[str, str]]:
    """What a claim was judged on, each with its entry."""
    policies = answer["policies"]
    where = policies[0] if item["policy"] == EVERY and len(policies) == 1 else item["policy"]
    keys = [(where, ALONE, "")]
    if "higher" in item:
        trainings = [item["training"]] if "training" in item else answer["trainings"]
        keys = [(where, training, item[side]) for training in trainings for side in ("higher", "lower")]
    known = {*_keys(answer["correlations"]), *_keys(answer["rows"])}
    return [(_title(*key), place("from", *key)) for key in keys if key in known]


# -- where from -------------------------------------------------------------------------------------------------------


def _entries(answer: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Where the numbers of each training came from, by place: an address for each policy and seed."""
    rows = {_key(row): row for row in answer["rows"]}
    found: dict[str, list[dict[str, Any]]] = {}
    for key in dict.fromkeys((*_keys(answer["correlations"]), *rows)):
        policy, training, subset = key
        if training == ALONE:
            lines = _alone(answer, policy)
        else:
            mine = [item for item in _mine(answer["curves"], (policy, training)) if item["subset"] == subset]
            lines = [(item["address"], _run(item, policy)) for item in mine]
        refused = rows[key]["addresses"].get("classify", []) if key in rows else []
        found.setdefault(_place(policy), []).append({
            "id": place("from", *key), "name": _how(training, subset), "subset": subset, "title": _title(*key),
            "back": place("row" if key in rows else "answer", *key),
            "lines": [*lines, *((address, "refusals") for address in refused)],
        })  # fmt: skip
    return found


def _alone(answer: dict[str, Any], policy: str) -> list[tuple[str, str]]:
    """The addresses of pairs trained on alone, which stand policy by policy in the order of seeds."""
    found = []
    for item in answer["singles"]:
        if policy in (item["policy"], EVERY):
            mine = [each for each in answer["places"] if each["policy"] == item["policy"]]
            found += [(address, _run(each, policy)) for address, each in zip(item["addresses"], mine, strict=True)]
    return found


def _run(item: dict[str, Any], policy: str) -> str:
    where = f"{item['policy']}, " if policy == EVERY else ""
    return f"{where}seed {item['seed']}"
