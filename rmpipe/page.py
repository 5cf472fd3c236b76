"""The report: one self-contained HTML page that opens from disk, in light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rmpipe import audited, caption, citation, diagnosed, displaced, figure, foreseen, frame, generalised, vanished
from rmpipe.verdict import NO_TRUTH

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

    from rmpipe.artifact import Diagnosis

COLUMNS = {
    "truth_gain": ("Ground-truth gain", "sd"), "proxy_gain": ("Proxy gain", "sd"), "variance": ("Variance", ""),
    "accuracy_on": ("Accuracy, on policy", ""), "accuracy_off": ("Accuracy, off policy", ""),
    "covariance": ("Covariance", ""), "kl": ("KL", "nats"), "length_gain": ("Longer by", "tokens"),
}  # fmt: skip
"""What the tables show, how they call it, and its unit."""
PROPERTIES = {
    "variance": "variance", "variance_raw": "variance, raw", "accuracy_on": "accuracy, on policy",
    "accuracy_on_half": "the same, ties half", "accuracy_off": "accuracy, off policy",
    "accuracy_mean": "both accuracies", "variance_and_accuracy": "variance and accuracy", "covariance": "covariance",
    "correlation": "correlation", "flat_share": "share of flat prompts", "margin": "margin, off policy",
    "calibration_error": "calibration error",
}  # fmt: skip
CURVES = (("steps", "truth"), ("steps", "proxy"), ("kl", "truth"), ("kl", "proxy"))
"""What is drawn across and up while a policy is trained."""
RELATED = ", Spearman with the "
"""What marks the sentences on correlations, which stand beside their figures."""
CONTROLS = {
    "on": "on policy (a tie is right only where the ground truth ties too)",
    "off": "off policy (a tie earns one half)",
}


def render(answer: dict[str, Any], address: str = "", diagnoses: Mapping[str, Diagnosis] | None = None) -> str:
    """The page of an answer.

    Args:
        answer: as `Ranking.answer()` gives it, of any flow.
        address: of that ranking, where it has one.
        diagnoses: of its pairs before training, by `diagnosed.key`; `displace` has them in its answer, `vanish` none.
    """
    before = diagnosed.told(answer, diagnoses or {})
    match answer.get("flow"):
        case "displace":
            return displaced.render(answer, address)
        case "generalise":
            return generalised.render(answer, address, before)
        case "vanish":
            return vanished.render(answer, address)
        case _:
            return _taught(answer, address, before)


def _taught(answer: dict[str, Any], address: str, before: dict[str, Any] | None) -> str:
    """The page of an answer to `teach`."""
    names = list(dict.fromkeys(item["reward_model"] for item in answer["curves"]))
    ink = figure.colours(names)
    trained = {row["reward_model"]: row["trained"] for row in answer["rows"]}
    groups = [_group(answer, policy, algorithm, ink, trained) for policy, algorithm in _pairs(answer["rows"])]
    leads = {text for group in groups for text in (*group["lead"], *group["related"])}
    html = _template().render(
        answer=answer,
        groups=groups,
        ink=ink,
        trained=trained,
        columns=COLUMNS,
        controls=CONTROLS,
        warning=NO_TRUTH if any(row["ranked_by"] == "proxy" for row in answer["rows"]) else "",
        rest=[text for text in answer["sentences"] if text not in leads and text != NO_TRUTH],
        claims=_claims(answer),
        far=answer.get("overoptimisation"),
        foretold=foreseen.section(answer, ink),
        before=before,
        audits=audited.section(answer.get("audits", [])),
        flattest=_flattest(answer),
        mark=audited.MARK,
        quantiles=diagnosed.COLUMNS,
        ranking=citation.RANKING,
        taught=citation.TAUGHT,
        why=f"rmpipe why {address}" if address else f"rmpipe rank {answer['study']}",
        address=address,
    )
    return citation.once(html)


def _flattest(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompts that teach nothing, with their numbers as text and the entry that they lead to."""
    cells = {(row["policy"], row["reward_model"]): row for row in reversed(answer["rows"])}
    found = []
    for item in answer.get("flattest", []):
        row = cells[item["policy"], item["reward_model"]]
        prompts = [
            prompt
            | {"std": citation.decimals(prompt["white_std"])}
            | {"responses": [told | {"reward": citation.decimals(told["reward"])} for told in prompt["responses"]]}
            for prompt in item["prompts"]
        ]
        share = "an unknown share" if item["share"] is None else f"{item['share']:.0%}"
        found.append(item | {"id": citation.entry(row, "flat_share"), "share": share, "prompts": prompts})
    return found


def _template() -> Template:
    return frame.template("page.html")


def _pairs(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["policy"], row["algorithm"]) for row in rows))


def _group(
    answer: dict[str, Any], policy: str, algorithm: str, ink: dict[str, str], trained: dict[str, bool]
) -> dict[str, Any]:
    """Everything of one policy under one algorithm."""

    def mine(name: str) -> list[dict[str, Any]]:
        return [
            item for item in answer[name] if item["policy"] == policy and item.get("algorithm", algorithm) == algorithm
        ]

    rows = mine("rows")
    said = [text for text in answer["sentences"] if text.startswith(f"{policy}, {algorithm}:")]
    first = algorithm == answer["algorithms"][0]  # what reads no text scores the same under all of them
    controls: dict[str, Any] = next((item for item in answer["controls"] if first and item["policy"] == policy), {})
    return {
        "policy": policy,
        "algorithm": algorithm,
        "rows": rows,
        "shown": [name for name in COLUMNS if any(row[name] for row in rows)],
        "lead": [text for text in said if RELATED not in text],
        "related": [text for text in said if RELATED in text],
        "controls": {name: value for name, value in controls.items() if name != "policy"},
        "figures": _figures(rows, mine("curves"), mine("variance_per_prompt"), ink, trained),
        **_far(rows, mine("curves"), _turns(answer, policy, algorithm), ink, trained),
        "correlations": _forests(mine("correlations")),
        "correlated": _correlated(mine("correlations")),
        "samples": mine("samples"),
        "sources": [(row, citation.sources(row, answer["curves"])) for row in rows],
    }


def _figures(
    rows: list[dict[str, Any]], curves: list[dict[str, Any]], varied: list[dict[str, Any]], ink: dict[str, str],
    trained: dict[str, bool],
) -> list[tuple[str, Markup]]:  # fmt: skip
    """Every figure that has something to show, with its caption: what was measured, then what was taught."""
    drawn = [
        (svg, caption.plane(rows, name))
        for name in ("accuracy_on", "accuracy_off")
        if (svg := figure.plane(rows, ink, name))
    ]
    prompts = {item["reward_model"]: item["values"] for item in varied}
    if prompts:
        drawn.append((figure.spread(prompts, ink), caption.spread(prompts, rows)))
    for x, y in CURVES:
        if svg := figure.curve(curves, ink, trained, x, y):
            drawn.append((svg, caption.curve(rows, curves, x, y)))
    return drawn


def _turns(answer: dict[str, Any], policy: str, algorithm: str) -> list[dict[str, Any]]:
    """What is told of going too far, of one policy and algorithm; nothing in an answer of before it was."""
    told = answer.get("overoptimisation", {"rows": []})["rows"]
    return [row for row in told if (row["policy"], row["algorithm"]) == (policy, algorithm)]


def _far(
    rows: list[dict[str, Any]], curves: list[dict[str, Any]], told: list[dict[str, Any]], ink: dict[str, str],
    trained: dict[str, bool],
) -> dict[str, Any]:  # fmt: skip
    """How far to go: the picture with its caption, the table in the order of the ranks, what to say of the first."""
    by_name = {row["reward_model"]: row for row in told}
    far = [by_name[row["reward_model"]] for row in rows if row["reward_model"] in by_name]
    first = {row["reward_model"] for row in rows if row["rank"] in ("1", "1=")}
    svg = figure.parted(curves, far, ink, trained, f"{rows[0]['policy']}, {rows[0]['algorithm']}")
    turned = [row for row in far if row["reward_model"] in first and row["sentence"]]
    return {"parted": (svg, caption.parted(far)) if svg else None, "far": far, "turned": turned}


def _correlated(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for every property and set of reward models: Pearson and Spearman with both gains."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for item in items:
        line = lines.setdefault((item["over"], item["property"]), {"n": item["n"], "over": item["over"]})
        line["property"] = PROPERTIES[item["property"]]
        line |= {f"{item['gain']}_{kind}": item[kind] for kind in ("pearson", "spearman")}
    return list(lines.values())


def _forests(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Forests of Spearman correlations: over all and over the trained, with either gain."""
    found = []
    for over in ("all", "trained"):
        for gain, words in (("truth", "ground-truth gain"), ("proxy", "proxy gain")):
            mine = {item["property"]: item for item in items if item["over"] == over and item["gain"] == gain}
            known = [(text, mine[name]["spearman"]) for name, text in PROPERTIES.items() if name in mine]
            if any(number for _, number in known):
                n = max(item["n"] for item in mine.values())
                svg = figure.forest(known, f"Spearman with the {words}", (-1.05, 1.05))
                title = f"Over {n} {'trained ' if over == 'trained' else ''}reward models, with the {words}"
                found.append({"title": title, "svg": svg, "caption": caption.forest(known)})
    return found


def _claims(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The stated claims, each with all it was judged on and a forest of its differences."""
    claims = []
    for name, text in dict.fromkeys((item["name"], item["claim"]) for item in answer["contrasts"]):
        mine = [item for item in answer["contrasts"] if item["name"] == name]
        known = [(_where(item), item["difference"]) for item in mine if item["difference"]]
        told = caption.differences([number for _, number in known])
        forest = figure.forest(known, "paired difference of gains, sd")
        judged = [_judged(item, answer["rows"]) for item in mine]
        claims.append({"name": name, "claim": text, "judged": judged, "svg": forest, "caption": told})
    return claims


def _judged(item: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    outcome, rest = item["sentence"].split(":", 1)
    return {
        "id": citation.place("from", "claim", item["name"], item["policy"] or "", item["algorithm"]),
        "where": _where(item),
        "outcome": outcome,
        "mark": frame.OUTCOMES.get(outcome, "open"),
        "rest": rest,
        "cells": citation.compared(item, rows),
    }


def _where(item: dict[str, Any]) -> str:
    return f"{item['policy'] or 'both policies'}, {item['algorithm']}"
