"""The page of an answer to `generalise`: whom to trust on which set, what was claimed, figures, and where from.

A place is a policy, or all of them together; the unit is the base, and the page says so wherever it says who is ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rmpipe import audited, citation, diagnosed, figure, frame, remark
from rmpipe.citation import cell, decimals, place, spanned
from rmpipe.generalisation import COIN, EVERY, SHIFTS
from rmpipe.trust import PUBLISHED, WORDS

if TYPE_CHECKING:
    import numpy as np
    from markupsafe import Markup

NUMBERS = {
    "margin": "Absolute margin", "loss": "Loss", "chosen": "Reward of the chosen", "rejected": "Reward of the rejected",
    "tokens": "Share that tokens explain",
}  # fmt: skip
"""What else is known of a reward model on a set, and how the page calls it."""
FORETOLD = {
    "separator.positive": "Separator ranks right", "cosine.mean": "Mean cosine", "cosine.positive": "Cosines above 0",
    "overlap.shifted": "Token overlap with originals", "overlap.itself": "Of originals alone",
}  # fmt: skip
"""What is shown of the untrained representations, and how the page calls it."""
WRITTEN = {"accuracy": "Tells right from wrong", "solved": "Writes what is right", "solved_by_base": "Its base does"}

Number = dict[str, Any] | None
Drawn = list[tuple[str, str, "Markup"]]


def render(answer: dict[str, Any], address: str = "", before: dict[str, Any] | None = None) -> str:
    """The page of an answer.

    Args:
        answer: of `tasks.judge`.
        address: of that answer, where it has one.
        before: of `rmpipe.diagnosed`, where the pairs were looked at before training.
    """
    kinds = {row["reward_model"]: row["kind"] for row in answer["rows"]}
    kinds = dict(sorted(kinds.items(), key=lambda item: (item[1], item[0])))
    ink = figure.colours(list(kinds))
    groups = [_group(answer, where, kinds, ink) for where in dict.fromkeys(row["policy"] for row in answer["rows"])]
    said = {PUBLISHED, *(text for group in groups for text in group["sentences"])}
    wrote = tuple(f"{item['policy']}, {item['reward_model']}: " for item in answer["generation"])  # a table tells it
    html = frame.template("generalised.html").render(
        answer=answer,
        ranking=citation.RANKING,
        address=address,
        why=f"rmpipe why {address}" if address else f"rmpipe rank {answer['study']}",
        lead=remark.lead([row for row in answer["rows"] if row["policy"] == groups[0]["policy"]]),
        kinds=kinds,
        ink=ink,
        trained={row["reward_model"]: row["trained"] for row in answer["rows"]},
        groups=groups,
        claims=_claims(answer),
        before=before,
        audits=audited.section(answer.get("audits", [])),
        mark=audited.MARK,
        unsound=audited.unsound(answer.get("audits", [])),
        quantiles=diagnosed.COLUMNS,
        foretold=_foretold(answer["separations"]),
        written=_written(answer["generation"]),
        samples=_samples(answer),
        rest=[text for text in answer["sentences"] if text not in said and not text.startswith(wrote)],
        published=PUBLISHED,
    )
    return citation.once(html)


def _group(answer: dict[str, Any], where: str, kinds: dict[str, str], ink: dict[str, str]) -> dict[str, Any]:
    """Everything of one place."""
    rows = [row for row in answer["rows"] if row["policy"] == where]
    sets = _sets(rows)
    starts = tuple(f"{where}, {name} (" for name in sets)
    mine = {name: [item for item in answer[name] if item["policy"] == where] for name in ("groups", "phrases")}
    return {
        "policy": where,
        "title": f"{EVERY.capitalize()} together" if where == EVERY else where,
        "shifts": [(WORDS[shift], len(list(part))) for shift, part in groupby(sets, lambda name: sets[name])],
        "sets": list(sets),
        "lines": _lines(rows, kinds, sets),
        "sentences": [text for text in answer["sentences"] if text.startswith(starts)],
        "figures": _figures(answer, rows, kinds, ink),
        "numbers": _numbers(rows, kinds, sets),
        "unit": remark.unit(rows),
        "tables": [
            *_crossed(mine["groups"], "group", "accuracy", "Accuracy group by group", decimals),
            *_crossed(mine["phrases"], "phrase", "reward", "Mean reward of each phrase", remark.digits),
        ],
        "entries": [_entry(answer, where, name) for name in kinds if any(row["reward_model"] == name for row in rows)],
    }


def _sets(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Sets with their kind of shift, in the order of shifts."""
    found = {row["set"]: row["shift"] for row in rows}
    return dict(sorted(found.items(), key=lambda item: SHIFTS.index(item[1])))


def _lines(rows: list[dict[str, Any]], kinds: dict[str, str], sets: dict[str, str]) -> list[dict[str, Any]]:
    """A line a reward model: its accuracy on every set, with its rank there."""
    leaders = {row["set"]: row for row in reversed(rows) if row["rank"] in ("1", "1=")}
    cells = {(row["reward_model"], row["set"]): row for row in rows}
    found = []
    for name, kind in kinds.items():
        if mine := [cells.get((name, one)) for one in sets]:
            told = [row and _accuracy(row, leaders[row["set"]]) for row in mine]
            found.append({"name": name, "kind": kind, "cells": told, "known": any(told)})
    return [line for line in found if line["known"]]


def _accuracy(row: dict[str, Any], leader: dict[str, Any]) -> dict[str, str]:
    """Every one that the leader is not told apart from shares its rank, wherever it stands."""
    told = cell(row["accuracy"], place("from", row["policy"], row["reward_model"])) or {}
    return told | {"rank": "1=" if row["reward_model"] in leader["not_told_from"] else row["rank"]}


def _numbers(rows: list[dict[str, Any]], kinds: dict[str, str], sets: dict[str, str]) -> dict[str, Any]:
    """All numbers besides accuracy: a line for each reward model and set; none for what nobody has."""
    rows = [row | {"tokens": row["carried"] or row["cues"]} for row in rows]
    shown = [name for name in NUMBERS if any(row[name] for row in rows)]
    ordered = sorted(rows, key=lambda row: (list(kinds).index(row["reward_model"]), list(sets).index(row["set"])))
    lines = []
    for row in ordered:
        target = place("from", row["policy"], row["reward_model"])
        cells = [cell(row[name], target, remark.digits) for name in shown]
        lines.append({"name": row["reward_model"], "set": row["set"], "cells": cells})
    return {"columns": [NUMBERS[name] for name in shown], "lines": lines}


def _crossed(
    items: list[dict[str, Any]], down: str, value: str, words: str, form: Callable[[float], str]
) -> list[dict[str, Any]]:
    """A table a set: something down, reward models across."""
    found = []
    for name in dict.fromkeys(item["set"] for item in items):
        mine = [item for item in items if item["set"] == name]
        across = list(dict.fromkeys(item["reward_model"] for item in mine))
        cells = {
            (item[down], item["reward_model"]): cell(
                item[value], place("from", item["policy"], item["reward_model"]), form
            )
            for item in mine
        }
        labels = dict.fromkeys(item[down] for item in mine)
        lines = [{"name": label, "cells": [cells.get((label, one)) for one in across]} for label in labels]
        found.append({"words": words, "down": down.capitalize(), "set": name, "across": across, "lines": lines})
    return found


def _entry(answer: dict[str, Any], where: str, name: str) -> dict[str, Any]:
    """Where the numbers of a reward model at a place came from: an address for each policy and seed."""
    row = next(row for row in answer["rows"] if (row["policy"], row["reward_model"]) == (where, name))
    trials = [item for item in answer["curves"] if item["reward_model"] == name and where in (item["policy"], EVERY)]
    words = [f"{item['policy']}, seed {item['seed']}" for item in trials]
    lines = list(zip(row["addresses"]["evaluate"], words, strict=True))
    return {"id": place("from", where, name), "back": place("row", where, name), "name": name, "lines": lines}


# -- figures ------------------------------------------------------------------------------------------------------


def _figures(
    answer: dict[str, Any], rows: list[dict[str, Any]], kinds: dict[str, str], ink: dict[str, str]
) -> dict[str, Drawn]:
    """Every kind of figure that has something to show: title, drawing and caption of each panel."""
    where = rows[0]["policy"]
    curves = [item for item in answer["curves"] if item["steps"] and where in (item["policy"], EVERY)]
    drawn = {
        "wins": _wins(duels(answer["contests"], where, kinds), where, ink),
        "accuracy": _bars(rows, "accuracy", "accuracy", kinds, ink),
        "margin": _bars(rows, "margin", "absolute margin, sd of rewards", kinds, ink),
        "learning": _learning(rows, curves, ink),
        "cues": _cues(rows, kinds, ink),
    }
    return {name: panels for name, panels in drawn.items() if panels}


def duels(contests: list[dict[str, Any]], where: str, kinds: dict[str, str]) -> list[dict[str, Any]]:
    """Contests of reward models that read hidden states or words against implicit ones, seen from the former's side.

    Args:
        contests: of the answer, in the study's order.
        where: a place.
        kinds: of reward models, by name.

    Returns:
        Dictionaries of shift, first, second (the implicit one), wins, runs and difference.
    """
    found = []
    for item in contests:
        implicit = [kinds[item[side]] == "implicit" for side in ("higher", "lower")]
        if item["policy"] == where and sum(implicit) == 1:
            told = {"shift": item["shift"], "runs": item["runs"]}
            if implicit[1]:
                told |= {"first": item["higher"], "second": item["lower"]}
                found.append(told | {"wins": item["wins"], "difference": item["difference"]})
            else:
                told |= {"first": item["lower"], "second": item["higher"]}
                found.append(told | {"wins": 1 - item["wins"], "difference": _turned(item["difference"])})
    return found


def _turned(number: Number) -> Number:
    low, high = (number or {}).get("low"), (number or {}).get("high")
    ends = {"low": None if high is None else -high, "high": None if low is None else -low}
    return number and {"value": -number["value"], **ends}


def _wins(items: list[dict[str, Any]], where: str, ink: dict[str, str]) -> Drawn:
    """A panel a kind of shift; a bar is full where the difference in accuracy is told from 0."""
    drawn, words = [], WORDS | {SHIFTS[0]: f"held out, {WORDS[SHIFTS[0]]}"}  # training pairs are no contest
    for shift in SHIFTS:
        mine = [item for item in items if item["shift"] == shift]
        shown = [
            (f"{item['first']}\nagainst {item['second']}", {"value": item["wins"], "low": None, "high": None},
             ink[item["first"]], remark.settled(item["difference"]))
            for item in mine
        ]  # fmt: skip
        if svg := figure.bars(shown, "share of runs won", f"{where}, {words[shift]}", COIN, (0, 1)):
            drawn.append((words[shift].capitalize(), svg, remark.won(mine)))
    return drawn


def _bars(rows: list[dict[str, Any]], number: str, words: str, kinds: dict[str, str], ink: dict[str, str]) -> Drawn:
    """A panel a set: every reward model with its interval; accuracies beside chance."""
    drawn, known = [], [row for row in rows if row[number]]
    most = 1.15 * max((row[number]["value"] for row in known), default=1.0)
    at, limits = (COIN, (0.0, 1.0)) if number == "accuracy" else (None, (0.0, most))
    for name, shift in _sets(rows).items():
        mine = {row["reward_model"]: row for row in known if row["set"] == name}
        shown = [(one, mine[one][number], ink[one], mine[one]["trained"]) for one in kinds if one in mine]
        if svg := figure.bars(shown, f"{words}, {name}", rows[0]["policy"], at, limits):
            told = remark.accuracy(list(mine.values())) if number == "accuracy" else remark.margin(list(mine.values()))
            drawn.append((f"{name}, {WORDS[shift]}", svg, told))
    return drawn


def _learning(rows: list[dict[str, Any]], curves: list[dict[str, Any]], ink: dict[str, str]) -> Drawn:
    """A panel a set: accuracy over training of those whose weights were kept on the way."""
    drawn = []
    for name, shift in _sets(rows).items():
        mine = [item for item in curves if name in item["sets"]]
        lines = {one: _stacked([item for item in mine if item["reward_model"] == one], name) for one in ink}
        lines = {one: pair for one, pair in lines.items() if pair[1].size}
        if svg := figure.learning(lines, ink, f"accuracy, {name}", rows[0]["policy"], COIN):
            told = remark.learning(lines, [row for row in rows if row["set"] == name])
            drawn.append((f"{name}, {WORDS[shift]}", svg, told))
    return drawn


def _stacked(curves: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and accuracies of a reward model's runs, (runs, looks) each, the end among them."""
    import numpy as np

    shortest = min((len(item["sets"][name]) for item in curves), default=0)
    across = [item["steps"][-shortest:] for item in curves]
    up = [item["sets"][name][-shortest:] for item in curves]
    return np.array(across, dtype=float), np.array(up, dtype=float)


def _cues(rows: list[dict[str, Any]], kinds: dict[str, str], ink: dict[str, str]) -> Drawn:
    """A panel a reward model: the share of its differences that tokens explain, where fitted and elsewhere."""
    drawn: Drawn = []
    sets, known = _sets(rows), [row for row in rows if row["carried"] or row["cues"]]
    shares = {(row["reward_model"], row["set"]): row["carried"] or row["cues"] for row in known}
    fitted = {row["set"] for row in known if not row["carried"]}
    least = min([0.0, *(1.15 * share["value"] for share in shares.values())])
    where = rows[0]["policy"]
    for name in kinds:
        mine = [(one, shares[name, one], one in fitted) for one in sets if (name, one) in shares]
        shown = [(one, share, ink[name], full) for one, share, full in mine]
        if svg := figure.bars(shown, f"share that tokens explain, {name}", where, None, (least, 1.0)):
            drawn.append((name, svg, remark.cues(mine, place("from", where, name))))
    return drawn


# -- beside the accuracies ----------------------------------------------------------------------------------------


def _claims(answer: dict[str, Any]) -> dict[str, Any] | None:
    """The stated claims, each with what it was judged on, and a forest of their differences."""
    items = answer["contrasts"]
    if not items:
        return None
    known = [(item["name"], item["difference"]) for item in items if item["difference"]]
    kinds = {row["reward_model"] for row in answer["rows"]}
    judged = [_judged(item, answer["policies"], kinds) for item in items]
    marks = [item["mark"] for item in judged]
    forest = figure.forest(known, "difference in accuracy")
    return {"judged": judged, "svg": forest, "caption": remark.claims(known, marks)}


def _judged(item: dict[str, Any], policies: list[str], kinds: set[str]) -> dict[str, Any]:
    where = policies[0] if item["policy"] == EVERY and len(policies) == 1 else item["policy"]
    sides = [(name, place("from", where, name)) for name in item["sides"] if name in kinds]
    return frame.judged(item, sides) | {"where": where}


def _foretold(separations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A table a policy: what its untrained representations foretell of each set, the mean over seeds and its range."""
    found = []
    for policy in dict.fromkeys(item["policy"] for item in separations):
        mine = [item for item in separations if item["policy"] == policy]
        shown = [name for name in FORETOLD if any(name in item for item in mine)]
        target = place("from", "separate", policy)
        lines = []
        for one in dict.fromkeys(item["set"] for item in mine):
            values = [[item[name] for item in mine if item["set"] == one and name in item] for name in shown]
            lines.append({"name": one, "cells": [cell(spanned(each), target, remark.three) for each in values]})
        addresses = dict.fromkeys((item["address"], f"seed {item['seed']}") for item in mine)
        found.append(
            {"policy": policy, "columns": [FORETOLD[name] for name in shown], "lines": lines, "id": target,
             "addresses": list(addresses), "caption": remark.foretold(mine, target)}
        )  # fmt: skip
    return found


def _written(generation: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How well implicit reward models tell right from wrong, beside how often they write what is right."""
    shown = [name for name in WRITTEN if any(item[name] for item in generation)]
    lines = [
        {"policy": item["policy"], "name": item["reward_model"],
         "cells": [cell(item[name], citation.RANKING) for name in shown]}
        for item in generation
    ]  # fmt: skip
    return {"columns": [WRITTEN[name] for name in shown], "lines": lines} if lines else None


def _samples(answer: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Example pairs by set, each reward model's two rewards and whether it orders them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in answer["samples"]:
        told = []
        for name, (chosen, rejected) in item["rewards"].items():
            order = "right" if chosen > rejected else "wrong" if chosen < rejected else "a tie"
            target = place("from", answer["policies"][0], name)
            told.append(
                {"name": name, "order": order, "target": target, "rewards": [*map(remark.five, (chosen, rejected))]}
            )
        found.setdefault(item["set"], []).append({**item, "told": told})
    return found
