"""What an answer and its report say of the audits of its reward models: who fails, who drifts, and how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rmpipe.audit import VERDICTS
from rmpipe.citation import place, signed

if TYPE_CHECKING:
    from rmpipe.artifact import Audit

MARK = "†"
"""Beside the name of a reward model that failed and is ranked all the same."""


def told(audits: Mapping[str, Sequence[Audit]]) -> list[dict[str, Any]]:
    """Each reward model with its verdict and its checks, the worst of its seeds.

    Args:
        audits: by the reward model's name, one a seed.

    Returns:
        Dictionaries with reward_model, verdict, addresses, and checks: of each its group, verdict, unit, found and
        remedy where it is worst, and the mean amount over seeds with its least and greatest.
    """
    found = []
    for name, each in audits.items():
        rows: dict[str, list[dict[str, Any]]] = {}
        for audit in each:
            for row in audit.table().to_dict("records"):
                rows.setdefault(row["check"], []).append(row)
        checks = sorted((_worst(seeds) for seeds in rows.values()), key=lambda check: VERDICTS.index(check["verdict"]))
        verdict = checks[0]["verdict"] if checks else "none"
        addresses = list(dict.fromkeys(audit.address for audit in each))
        found.append({"reward_model": name, "verdict": verdict, "checks": checks, "addresses": addresses})
    return sorted(found, key=lambda item: VERDICTS.index(item["verdict"]))


def _worst(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One check over seeds."""
    worst = min(rows, key=lambda row: (VERDICTS.index(row["verdict"]), -abs(row["amount"])))
    amounts = [float(row["amount"]) for row in rows]
    kept = {name: worst[name] for name in ("check", "group", "verdict", "unit", "found", "remedy")}
    return kept | {"amount": sum(amounts) / len(amounts), "least": min(amounts), "greatest": max(amounts)}


def unsound(audits: Sequence[dict[str, Any]]) -> list[str]:
    """The reward models that failed.

    Args:
        audits: of `told`.
    """
    return [item["reward_model"] for item in audits if item["verdict"] == "fail"]


def marked(rows: list[dict[str, Any]], audits: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of an answer, each with `sound`: whether its reward model passed.

    Args:
        audits: of `told`.
    """
    failed = unsound(audits)
    return [row | {"sound": row["reward_model"] not in failed} for row in rows]


def sentences(audits: Sequence[dict[str, Any]], ground_truth: str | None) -> list[str]:
    """Who failed and is ranked all the same, and who drifts.

    Args:
        audits: of `told`.
        ground_truth: the reward model that gains are taken of.
    """
    said = []
    for item in audits:
        if failed := [check["found"] for check in item["checks"] if check["verdict"] == "fail"]:
            whole = ", and every ground-truth gain rests on it" if item["reward_model"] == ground_truth else ""
            told = f"{item['reward_model']} fails its audit, and is ranked since the study allows it{whole}"
            said.append(f"UNSOUND {MARK} {told}: {' '.join(failed)}")
    drifts = any(check["verdict"] == "drift" for item in audits for check in item["checks"])
    sound = f"none of the {len(audits)} reward models fails" if not said else f"{len(audits) - len(said)} others pass"
    told = "; what moves their scores, and what else was found, is in the report" if drifts else ""
    return [*said, f"Audited: {sound}{told}."] if audits else []


def section(audits: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The audits as the page shows them: amounts as text, each leading to its entry.

    Args:
        audits: of `told`.
    """
    return [
        item | {
            "id": place("from", "audit", item["reward_model"]),
            "checks": [check | {"told": _amount(check)} for check in item["checks"]],
        }
        for item in audits
    ]  # fmt: skip


def _amount(check: dict[str, Any]) -> str:
    """How much, with the range over seeds where there is one."""
    form = "{:.0%}" if check["unit"] == "share" else "{:.2f} sd" if check["unit"] == "sd" else "{:.2f}"
    amount, least, greatest = (signed(form.format(check[name])) for name in ("amount", "least", "greatest"))
    return amount if least == greatest else f"{amount} ({least} to {greatest})"
