"""The report: one self-contained HTML page that opens from disk, in light and dark, wide and narrow."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from rmpipe import figure
from rmpipe.verdict import NO_TRUTH

if TYPE_CHECKING:
    from jinja2 import Template

COLUMNS = {
    "truth_gain": "Ground-truth gain", "proxy_gain": "Proxy gain", "variance": "Variance",
    "accuracy_on": "Accuracy, on policy", "accuracy_off": "Accuracy, off policy", "covariance": "Covariance",
    "kl": "KL", "length_gain": "Longer by",
}  # fmt: skip
"""What the tables show, and how they call it."""
PROPERTIES = {
    "variance": "variance", "variance_raw": "variance, raw", "accuracy_on": "accuracy, on policy",
    "accuracy_on_half": "the same, ties half", "accuracy_off": "accuracy, off policy",
    "accuracy_mean": "both accuracies", "variance_and_accuracy": "variance and accuracy", "covariance": "covariance",
    "correlation": "correlation", "flat_share": "share of flat prompts", "margin": "margin, off policy",
    "calibration_error": "calibration error",
}  # fmt: skip
CURVES = {
    ("steps", "truth"): "What people want, while the policy is trained: steeper teaches faster, falling is harm.",
    ("steps", "proxy"): "What the reward model itself gives: it rises under good and bad teachers alike.",
    ("kl", "truth"): "The same gain for the distance gone: higher at one KL is more efficient.",
    ("kl", "proxy"): "The reward model's own reward for the distance gone.",
}
PLANES = {
    "accuracy_on": "If accuracy chose the teacher, discs would grow to the right; if variance did, upwards.",
    "accuracy_off": "The same with the accuracy that benchmarks report, on the data set's own pairs.",
}
CONTROLS = {
    "on": "on policy (a tie is right only where the ground truth ties too)",
    "off": "off policy (a tie earns one half)",
}
SPREAD = "Prompts at 0 teach nothing under that reward model."


def render(answer: dict[str, Any]) -> str:
    """The page of an answer.

    Args:
        answer: as `Ranking.answer()` gives it.
    """
    names = list(dict.fromkeys(item["reward_model"] for item in answer["curves"]))
    ink = figure.colours(names)
    trained = {row["reward_model"]: row["trained"] for row in answer["rows"]}
    groups = [_group(answer, policy, algorithm, ink, trained) for policy, algorithm in _pairs(answer["rows"])]
    return _template().render(
        answer=answer,
        groups=groups,
        ink=ink,
        trained=trained,
        columns=COLUMNS,
        controls=CONTROLS,
        warning=NO_TRUTH if any(row["ranked_by"] == "proxy" for row in answer["rows"]) else "",
        claims=_claims(answer["contrasts"]),
        addresses=_addresses(answer["rows"]),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": _number, "interval": _interval}
    return environment.from_string(files("rmpipe").joinpath("page.html").read_text(encoding="utf-8"))


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

    rows, curves = mine("rows"), mine("curves")
    drawn = [(figure.curve(curves, ink, trained, x, y), caption) for (x, y), caption in CURVES.items()]
    planes = [(figure.plane(rows, ink, name), caption) for name, caption in PLANES.items()]
    spread = figure.spread({item["reward_model"]: item["values"] for item in mine("variance_per_prompt")}, ink)
    shown = [name for name in COLUMNS if any(row[name] for row in rows)]
    controls: dict[str, Any] = next((item for item in answer["controls"] if item["policy"] == policy), {})
    return {
        "policy": policy,
        "algorithm": algorithm,
        "rows": rows,
        "shown": shown,
        "lead": [text for text in answer["sentences"] if text.startswith(f"{policy}, {algorithm}:")],
        "controls": {name: value for name, value in controls.items() if name != "policy"},
        "figures": [(svg, caption) for svg, caption in (*planes, *drawn, (spread, SPREAD)) if svg],
        "correlations": _forests(mine("correlations")),
        "correlated": _correlated(mine("correlations")),
        "samples": mine("samples"),
    }


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
                title = f"Spearman with the {words}, over {n} {'trained ' if over == 'trained' else ''}reward models"
                found.append({"title": title, "svg": figure.forest(known, f"Spearman with the {words}", (-1.05, 1.05))})
    return found


def _claims(contrasts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stated claims, each with all it was judged on and a forest of its differences."""
    claims = []
    for name, text in dict.fromkeys((item["name"], item["claim"]) for item in contrasts):
        mine = [item for item in contrasts if item["name"] == name]
        label = [f"{item['policy'] or 'both policies'}, {item['algorithm']}" for item in mine]
        differences = list(zip(label, (item["difference"] for item in mine), strict=True))
        forest = figure.forest(differences, "paired difference of gains, sd")
        claims.append({"name": name, "claim": text, "judged": mine, "svg": forest})
    return claims


def _addresses(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"names": f"{row['policy']}, {row['algorithm']}, {row['reward_model']}", **row["addresses"]} for row in rows
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _interval(number: dict[str, Any]) -> str:
    if number["low"] is None or number["high"] is None:
        return ""
    return f"{_number(number['low'])} to {_number(number['high'])}"
