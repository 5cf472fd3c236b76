"""The page of an answer to `vanish`: where the gradient vanishes, what each arm gained, how many labels are worth it.

A place is a policy with the reward that it climbs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rmpipe import citation, exhibit, figure, frame, glance, remark, sieve
from rmpipe.citation import cell, place
from rmpipe.displaced import counted
from rmpipe.generalisation import EVERY
from rmpipe.glance import digits
from rmpipe.reckoning import ALL

if TYPE_CHECKING:
    import numpy as np
    from markupsafe import Markup
    from numpy.typing import NDArray

BEFORE = {
    "flat": ("Under the threshold", "share"), "zero": ("All rewards equal", "share"), "std_low": ("Std, low", ""),
    "std_high": ("Std, high", ""), "norm_low": ("Norm, low", "root mean square"),
    "norm_high": ("Norm, high", "root mean square"),
    "ratio": ("Low over high", "norms"), "spearman": ("Spearman", "std, norm"),
}  # fmt: skip
"""What is told of a place before training, how the page calls it, and its unit."""
BESIDE = {
    "pearson": ("Pearson", "of squares"), "exponent": ("Power", "of the std"), "std": ("Std", ""),
    "cut": ("Low up to", "std"), "mean": ("Mean reward", ""), "mean_low": ("Mean, low", ""),
    "mean_high": ("Mean, high", ""), "prompts": ("Prompts", ""), "samples": ("Samples", "a prompt"),
}  # fmt: skip
"""What is told beside that, in a table of its own, which paper has room for."""
BOUNDS = {
    "bound": "Of 6 L \N{GREEK SMALL LETTER GAMMA} std^(2/3)",
    "tighter": "Of \N{SQUARE ROOT}L \N{GREEK SMALL LETTER GAMMA} std",
}
"""What a gradient's norm is measured against."""
COLUMNS = {
    "gain": ("Gain", ""), "low": ("Low std", ""), "high": ("High std", ""), "gap": ("High less low", ""),
    "after": ("After", ""), "recovered": ("Recovered", "share"), "kl": ("KL", "nats"), "labels": ("Labels", "inputs"),
    "steps": ("Steps", "SFT + RLHF"),
}  # fmt: skip
"""What is told of an arm."""
MORE = {
    "recovered_low": ("Recovered, low", "share"), "recovered_high": ("Recovered, high", "share"),
    "low_after": ("After, low", ""), "high_after": ("After, high", ""), "spearman": ("Spearman", "std, gain"),
    "pearson": ("Pearson", "std, gain"), "tokens": ("Writes", "tokens"),
}  # fmt: skip
"""What is told of it beside that."""
LABELS = {
    "of_all": ("Share", ""), "labels": ("Labels", ""), "sft_steps": ("SFT steps", ""), "gain": ("Gain", ""),
    "low": ("Low std", ""), "recovered": ("Recovered", "share"),
}  # fmt: skip
"""What is told of a share of labels."""
FATES = {"kept": ("Kept", ""), "dropped": ("Dropped", ""), "deferred": ("Deferred", "")}
CURVES = {"rewards": "mean reward, held out", "kl": "KL since RLHF began, nats"}
LINES = {False: "SFT alone", True: "SFT, then RLHF"}
"""By whether RLHF follows."""
SIDES = ("low", "high")
PARTS = ("least std", "second", "third", "most std")
UNITS = {"norm": "gradient norm", "correlation": "rank correlation", "spearman": "rank correlation",
         "recovered": "share recovered", "recovered_low": "share recovered",
         "recovered_high": "share recovered"}  # fmt: skip
"""What a claim is about; all others are of gains, in reward units."""
MADE = {"gauge": "std and gradients", "score": "rewards", "imitate": "SFT", "align": "RLHF", "sift": "sieve",
        "control": "the experiment"}  # fmt: skip
"""What a stage left."""
Drawn = list[tuple[str, str, "Markup"]]
Where = tuple[str, str]
"""Policy and reward."""


def render(answer: dict[str, Any], address: str = "") -> str:
    """The page of an answer.

    Args:
        answer: of `tasks.conclude`.
        address: of that answer, where it has one.
    """
    ink = figure.colours(list(answer["arms"]))
    first, *more = answer["sentences"][:-2]
    verdict, _, numbers = first.partition(". ")
    places = _wheres([*answer["vanished"], *answer["rows"]])
    html = frame.template("vanished.html").render(
        answer=answer,
        ranking=citation.RANKING,
        address=address,
        why=f"rmpipe why {address}" if address else f"rmpipe rank {answer['study']}",
        verdict=verdict.removesuffix("."),
        numbers=numbers,
        more=_paragraphs(answer, more, places),
        before=_before(answer),
        gained=[_gained(answer, where, ink) for where in _wheres(answer["rows"])],
        curves=[item for where in _wheres(answer["curves"]) if (item := _curves(answer, where, ink))["panels"]],
        labelled=[_labelled(answer, where) for where in _wheres(answer["labelled"])],
        prompts=_prompts(answer["prompts"]),
        sieves=_sieves(answer["sieves"]),
        difference=sieve.DIFFERENCE,
        controlled=[exhibit.shown(item, BOUNDS) for item in answer["controlled"]],
        claims=_claims(answer),
        ink=ink,
        entries={title(*where): _entries(answer, where) for where in places},
        experiments=[_experiment(item) for item in answer["controlled"]],
        rests=answer["sentences"][-2],
        published=answer["sentences"][-1],
    )
    return citation.once(html)


def _wheres(items: Sequence[Mapping[str, Any]]) -> list[Where]:
    """Policies and rewards, in their order."""
    return list(dict.fromkeys(map(_where, items)))


def _mine(items: Sequence[dict[str, Any]], where: Where) -> list[dict[str, Any]]:
    return [item for item in items if (item["policy"], item["reward"]) == where]


def _paragraphs(answer: dict[str, Any], said: Sequence[str], places: Sequence[Where]) -> list[tuple[str, str]]:
    """Sentences, those of a place together; the first of these under its name, where there are several places."""
    found: dict[str, list[str]] = {}
    for text in said:
        name = next((title(*where) for where in places if text.startswith(f"{title(*where)}: ")), "")
        found.setdefault(name, []).append(text.removeprefix(f"{name}: "))
    told = []
    for name, mine in found.items():
        head = name if len(places) > 1 else ""
        told.append((head, mine[0] if head else _begun(mine[0], answer)))
        told += [("", _begun(text, answer)) for text in mine[1:]]
    return told


def _begun(text: str, answer: dict[str, Any]) -> str:
    """A sentence as a paragraph begins, unless with a name, which stays as it is."""
    names = (*answer["arms"], *answer["policies"], *(item["name"] for item in answer["controlled"]))
    return text if text.startswith(names) else text[:1].upper() + text[1:]


def title(policy: str, reward: str) -> str:
    """What a place is called."""
    return f"{policy}, {reward}"


def _entry(item: Mapping[str, Any]) -> str:
    """The entry of an arm at a place."""
    return place("from", item["policy"], item["reward"], item["arm"])


def _gauge(where: Where) -> str:
    return place("gauge", *where)


def _table(
    items: Sequence[dict[str, Any]], heads: Mapping[str, tuple[str, str]], target: Callable[[Any], str],
    called: Callable[[Any], str],
) -> dict[str, Any]:  # fmt: skip
    """A line an item, with a cell for each head of which something is known; counts and words among the numbers."""
    shown = [name for name in heads if any(item[name] is not None for item in items)]
    lines = [{"name": called(item), "cells": [_cell(item[name], target(item)) for name in shown]} for item in items]
    return {"columns": [heads[name] for name in shown], "lines": lines}


def _cell(number: Any, target: str) -> dict[str, str] | None:
    if isinstance(number, str):
        return {"text": number, "ends": "", "target": target}
    told = cell(counted(number) if isinstance(number, int) else number, target, digits)
    same = told is not None and told["ends"] == f"{told['text']} to {told['text']}"
    return told and told | ({"ends": ""} if same else {})


def _where(item: Mapping[str, Any]) -> Where:
    return item["policy"], item["reward"]


# -- before training --------------------------------------------------------------------------------------------------


def _before(answer: dict[str, Any]) -> dict[str, Any] | None:
    """Where the gradient vanishes: a line a place, and how gradients go with the std."""
    items = answer["vanished"]
    if not items:
        return None
    told: Any = {"target": lambda item: _gauge(_where(item)), "called": lambda item: title(*_where(item))}
    bounds = [item for item in items if item["bound"] or item["tighter"]]
    return {
        "first": _table(items, BEFORE, **told), "beside": _table(items, BESIDE, **told),
        "bounds": _table(bounds, {name: (text, "") for name, text in BOUNDS.items()}, **told),
        "panels": [panel for points in answer["points"] for panel in _norms(answer, points)],
        "rests": _rests(items[0]),
    }  # fmt: skip


def _rests(item: Mapping[str, Any]) -> str:
    runs, bases = ((item[name], word) for name, word in (("runs", "run"), ("bases", "base")))
    return " on ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in (runs, bases))


def _norms(answer: dict[str, Any], points: dict[str, Any]) -> Drawn:
    """Gradient norm against std, of the prompts of one run."""
    where = (points["policy"], points["reward"])
    known = [pair for pair in zip(points["std"], points["norm"] or (), strict=False) if pair[1] is not None]
    if not known:
        return []
    std, norm = zip(*known, strict=True)
    few, cut = _few(std, points["cut"])
    words = ("std of the reward at a prompt", "gradient norm")
    svg = figure.scatter(_sides(std, norm, few), figure.colours(SIDES), words, title(*where), cut, log=True)
    item = next(iter(_mine(answer["vanished"], where)))
    told = glance.norms({"std": std, "norm": norm}, few, item["exponent"], _gauge(where))
    return [(f"{title(*where)}, seed {points['seed']}", svg, told)]


def _few(std: Sequence[float], cut: float) -> tuple[NDArray[np.bool_], float | None]:
    """Which of these prompts are of low std, and a std between theirs and the others', on a logarithmic axis."""
    import numpy as np

    few = np.asarray(std) <= cut
    more = np.asarray(std)[~few]
    return few, float(np.sqrt(cut * more.min())) if cut and more.size else None


def _sides(x: Sequence[float], y: Sequence[float], few: NDArray[np.bool_]) -> dict[str, tuple[Any, Any]]:
    """Points of low and of high std."""
    import numpy as np

    return {name: (np.asarray(x)[part], np.asarray(y)[part]) for name, part in zip(SIDES, (few, ~few), strict=True)}


# -- what arms gained -------------------------------------------------------------------------------------------------


def _gained(answer: dict[str, Any], where: Where, ink: dict[str, str]) -> dict[str, Any]:
    """Everything of one place after training."""
    rows = [row | {"steps": f"{row['sft_steps']} + {row['rlhf_steps']}"} for row in _mine(answer["rows"], where)]
    first, beside = (_table(rows, heads, _entry, lambda row: row["arm"]) for heads in (COLUMNS, MORE))
    for line, row in zip(first["lines"], rows, strict=True):
        told = {"rank": row["rank"], "rule": rule(answer["arms"][row["arm"]]), "id": place("row", *where, row["arm"])}
        line |= told
    return {
        "title": title(*where), "first": first, "beside": beside,
        "start": rows[0]["before"] and glance.told(rows[0]["before"], _entry(rows[0])),
        "rests": _rests(rows[0]), "bars": _bars(rows, where), "quarters": _quarters(answer, where, ink),
        "scatters": _scatters(answer, where, rows, ink),
    }  # fmt: skip


def rule(arm: Mapping[str, Any]) -> str:
    """What an arm does, in words.

    Args:
        arm: of an answer's `arms`.
    """
    which = {"low": "low-std ", "high": "high-std "}.get(arm["of"], "")
    inputs = f"{100 * arm['share']:.3g} % of the {which}inputs" if arm["share"] < 1 else f"all {which}inputs"
    learnt = f"SFT on {inputs}" if arm["finetuning"] else ""
    taught = arm["algorithm"] or ""
    told = f"{learnt}, then {taught}" if learnt and taught else learnt or f"{taught} alone"
    return f"{told}, sifted" if arm["sifted"] else told


def _bars(rows: Sequence[dict[str, Any]], where: Where) -> Drawn:
    """The gain of prompts of low and of high std, arm by arm."""
    colour = figure.colours(SIDES)
    shown = [
        (f"{row['arm']} {side}", row[side], colour[side], remark.settled(row[side]))
        for row in rows for side in SIDES if row[side]
    ]  # fmt: skip
    svg = figure.bars(
        shown, "gain, reward units", title(*where), None, figure.reach([number for _, number, *_ in shown])
    )
    return [("Low std and high std", svg, glance.gaps(rows))] if svg else []


def _quarters(answer: dict[str, Any], where: Where, ink: dict[str, str]) -> Drawn:
    """A panel an arm: the gain in each quarter of the prompts by initial std, all on one scale."""
    parts, drawn = _mine(answer["quarters"], where), []
    scale = figure.reach([item["gain"] for item in parts if item["gain"]])
    for name in ink:
        mine = [item for item in parts if item["arm"] == name and item["gain"]]
        shown = [(PARTS[item["part"] - 1], item["gain"], ink[name], remark.settled(item["gain"])) for item in mine]
        if svg := figure.bars(shown, "gain, reward units", f"{title(*where)}, {name}", None, scale):
            drawn.append((name, svg, glance.quarters(mine, place("from", *where, name))))
    return drawn


def _scatters(answer: dict[str, Any], where: Where, rows: Sequence[dict[str, Any]], ink: dict[str, str]) -> Drawn:
    """The gain of each prompt against its initial std, of the plainest arms and the one that gained most."""
    points = next(iter(_mine(answer["points"], where)), None)
    if points is None:
        return []
    known = {row["arm"]: row for row in rows if row["arm"] in points["gains"]}
    gains = [gain for name in _plain(known, answer["arms"]) for gain in points["gains"][name]]
    scale, drawn = (min([0.0, *gains]), max([0.0, *gains])), []
    pad = 0.05 * (scale[1] - scale[0] or 1.0)
    for name in _plain(known, answer["arms"]):
        shown = {"": (points["std"], points["gains"][name])}
        words, told = ("initial std of the reward at a prompt", "gain, reward units"), f"{title(*where)}, {name}"
        svg = figure.scatter(shown, {"": ink[name]}, words, told, None, (scale[0] - pad, scale[1] + pad))
        drawn.append((f"{name}, seed {points['seed']}", svg, glance.related(known[name])))
    return drawn


def _plain(known: Mapping[str, Any], arms: Mapping[str, dict[str, Any]]) -> list[str]:
    """RFT alone, SFT alone and the arm that gained most, which comes first in `known`."""
    alone = [name for name in arms if name in known and not (arms[name]["finetuning"] and arms[name]["algorithm"])]
    alone.sort(key=lambda name: (arms[name]["sifted"], -arms[name]["share"]))
    kinds = {bool(arms[name]["finetuning"]): name for name in reversed(alone)}
    found = [kinds[kind] for kind in (False, True) if kind in kinds]
    return list(dict.fromkeys([*found, *list(known)[:1]]))


def _curves(answer: dict[str, Any], where: Where, ink: dict[str, str]) -> dict[str, Any]:
    """What RLHF did step by step: a line an arm."""
    curves, drawn = _mine(answer["curves"], where), []
    for name, words in CURVES.items():
        each = {arm: [item for item in curves if item["arm"] == arm and item.get(name)] for arm in ink}
        lines = {arm: figure.runs(items, name) for arm, items in each.items() if items}
        start = [
            item[name][0] for arm, items in each.items() if not answer["arms"][arm]["finetuning"] for item in items
        ]
        at = sum(start) / len(start) if start else None
        if svg := figure.learning(lines, ink, words, title(*where), at):
            drawn.append((words[:1].upper() + words[1:], svg, glance.curves(lines, where)))
    return {"title": title(*where), "panels": drawn}


# -- how many labels --------------------------------------------------------------------------------------------------


def _labelled(answer: dict[str, Any], where: Where) -> dict[str, Any]:
    """The measured curve of a place, and what it advises."""
    items = [item | {"of_all": f"{100 * item['share']:.3g} %"} for item in _mine(answer["labelled"], where)]
    table = _table(items, LABELS, _entry, lambda item: item["arm"])
    for line, item in zip(table["lines"], items, strict=True):
        line["line"] = LINES[item["rlhf"]] if item["share"] else "RLHF alone"
    return {
        "title": title(*where), "table": table, "panels": _worth(items, where, answer["reference"]),
        "advice": [glance.advised(item) for item in _mine(answer["advice"], where)],
    }  # fmt: skip


def _worth(items: Sequence[dict[str, Any]], where: Where, reference: str | None) -> Drawn:
    """The share of the reference's gain over labels, or the gain where there is no reference."""
    number = "recovered" if any(item["recovered"] for item in items) else "gain"
    words = f"share of the gain of {reference}" if number == "recovered" else "gain, reward units"
    lines: dict[str, list[dict[str, Any]]] = {}
    known = [item | {"labels": item["labels"] or counted(0)} for item in items if item[number]]
    for item in sorted(known, key=lambda item: (item["rlhf"], item["labels"]["value"], item["sft_steps"])):
        lines.setdefault(LINES[item["rlhf"]], []).append(item)
    rungs = {name: [(item["labels"]["value"], item[number]) for item in mine] for name, mine in lines.items()}
    at, ink = float(number == "recovered"), figure.colours(list(LINES.values()))
    svg = figure.ladder(rungs, ink, "labelled inputs", words, title(*where), at, log=True)
    return [(words[:1].upper() + words[1:], svg, glance.labels(lines, number))] if svg else []


# -- prompts ----------------------------------------------------------------------------------------------------------


def _prompts(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prompts at either end of the std, with what the policy answers there, by end and place."""
    found = []
    for end, policy, reward in dict.fromkeys((item["end"], item["policy"], item["reward"]) for item in items):
        mine = [item for item in _mine(items, (policy, reward)) if item["end"] == end]
        target = _gauge((policy, reward))
        shown = [_prompt(item, target) for item in mine]
        found.append({"title": f"{title(policy, reward)}: {end} std, seed {mine[0]['seed']}", "shown": shown})
    return found


def _prompt(item: dict[str, Any], target: str) -> dict[str, Any]:
    """A prompt whose numbers are citations."""
    numbers = {name: item[name] for name in ("std", "mean", "norm")}
    told = {name: citation.link(digits(number), target) for name, number in numbers.items() if number is not None}
    samples = [each | {"reward": citation.link(digits(each["reward"]), target)} for each in item["samples"]]
    return {"prompt": item["prompt"], "numbers": told, "samples": samples}


def _sieves(items: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """How many prompts are left out of RLHF, or put off, a line a place."""
    return _table(items, FATES, _sieve, lambda item: title(*_where(item))) if items else None


def _sieve(item: Mapping[str, Any]) -> str:
    return place("sift", item["policy"], item["reward"])


# -- claims, and where from -------------------------------------------------------------------------------------------


def _claims(answer: dict[str, Any]) -> dict[str, Any] | None:
    """The stated claims, each with what it was judged on, and a forest for each unit that they are in."""
    items = answer["contrasts"]
    if not items:
        return None
    judged = [frame.judged(item, _judged_on(item, answer)) for item in items]
    units = [UNITS.get(item.get("number", ""), "reward units") for item in items]
    marks = [told["mark"] for told in judged]
    return {"judged": judged, "forests": remark.forests(items, marks, units, list(dict.fromkeys(units)))}


def _judged_on(item: dict[str, Any], answer: dict[str, Any]) -> list[tuple[str, str]]:
    """What a claim was judged on, each with its entry: places before training, arms, or an experiment."""
    if item.get("controlled"):
        return [(item["controlled"], place("control", item["controlled"]))]

    def meant(each: Mapping[str, Any]) -> bool:
        return all(item[key] in (EVERY, ALL, each[key]) for key in ("policy", "reward"))

    arms = [item[side] for side in ("arm", "than") if item.get(side)]
    if not arms:
        return [
            (title(*where), _gauge(where)) for where in _wheres([each for each in answer["vanished"] if meant(each)])
        ]
    return [
        (f"{title(row['policy'], row['reward'])}, {row['arm']}", _entry(row))
        for row in answer["rows"] if row["arm"] in arms and meant(row)
    ]  # fmt: skip


def _entries(answer: dict[str, Any], where: Where) -> list[dict[str, Any]]:
    """Where the numbers of a place came from: before training, what was left out, and of each arm."""
    seeds = [each["seed"] for each in answer["places"] if each["policy"] == where[0]]
    seeds = list(dict.fromkeys(seeds))
    found = [
        {"id": _gauge(where), "name": "before training", "title": f"{title(*where)} before training",
         "back": "vanished", "lines": _lines(item["addresses"], seeds)}
        for item in _mine(answer["vanished"], where)
    ]  # fmt: skip
    found += [
        {"id": _sieve(item), "name": "prompts left out", "title": f"the prompts left out of {title(*where)}",
         "back": "prompts", "lines": _lines(item["addresses"], seeds)}
        for item in _mine(answer["sieves"], where)
    ]  # fmt: skip
    return found + [
        {"id": _entry(row), "name": row["arm"], "title": f"{row['arm']}, {title(*where)}", "arm": row["arm"],
         "back": place("row", *where, row["arm"]), "lines": _lines(row["addresses"], seeds)}
        for row in _mine(answer["rows"], where)
    ]  # fmt: skip


def _lines(addresses: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> list[tuple[str, str]]:
    """Addresses with what was made there, and with which seed where there is one a seed."""
    found = []
    for stage, made in addresses.items():
        named = [f", seed {seed}" for seed in seeds] if len(seeds) == len(made) else [""] * len(made)
        found += [(address, f"{MADE.get(stage, stage)}{seed}") for address, seed in zip(made, named, strict=True)]
    return found


def _experiment(item: dict[str, Any]) -> dict[str, Any]:
    """Where the numbers of a controlled experiment came from."""
    return {"id": place("control", item["name"]), "name": item["name"], "back": "controlled",
            "title": f"the experiment {item['name']}", "lines": _lines(item["addresses"], item["seeds"])}  # fmt: skip
