"""The best teacher of each policy as an alias of its registered version, so that it loads by what it is best at.

A study crowns versions of its own registered models `best-teacher-of-weak`, and those that it took as hits from another
study `contrast-best-teacher-of-weak`: two studies never fight over one alias.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rmpipe.artifact import Artifact
from rmpipe.config import StudyError
from rmpipe.journal import MODELS, registrable
from rmpipe.registry import every

WORD = "best-teacher-of-"


def crown(client: Any, home: Path, answer: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Alias the versions that taught in the winning cells of the first algorithm and seed; take older aliases away.

    Args:
        client: MLflow's.
        home: the folder with all state.
        answer: a ranking's.

    Returns:
        `POLICY.REWARD_MODEL` -> `models:/name@alias`, and what could not be done.
    """
    study, told, faults = answer["study"], {}, []
    crowns: dict[tuple[str, str], Any] = {}
    for row in _winners(answer):
        version, fault = _teacher(client, home, study, row["addresses"]["align"][0])
        key = (version.name, alias(study, version.name, row["policy"])) if version else ("", "")
        if version is None or crowns.setdefault(key, version.version) != version.version:
            fault = fault or "another version of its name is as good, and has the alias"
            faults.append(f"the best teacher of {row['policy']}, {row['reward_model']}, has no alias: {fault}")
        else:
            told[f"{row['policy']}.{row['reward_model']}"] = f"models:/{key[0]}@{key[1]}"
    _uncrown(client, study, crowns)
    for (name, word), number in crowns.items():
        client.set_registered_model_alias(name, word, number)
    return told, faults


def alias(study: str, name: str, policy: str) -> str:
    """What a study calls the best teacher of a policy among the versions of a registered model."""
    return re.sub(r"[^\w-]", "-", f"{'' if _owns(study, name) else f'{study}-'}{WORD}{policy}")[:255]


def _owns(study: str, name: str) -> bool:
    return name.startswith(f"{registrable(study)}-{MODELS['RewardModel']}-")


def _winners(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of who taught best; none where nobody was taught, or where it was not asked who teaches best."""
    if answer.get("flow", "teach") != "teach":
        return []
    taught = [row for row in answer["rows"] if "align" in row["addresses"]]
    first = answer["algorithms"][0] if taught else ""
    return [row for row in taught if row["algorithm"] == first and row["rank"] in ("1", "1=")]


def _teacher(client: Any, home: Path, study: str, aligned: str) -> tuple[Any, str]:
    """The registered version whose bytes taught an aligned policy, the study's own if it has one; or None, and why."""
    try:
        record = Artifact(aligned, home).record
    except StudyError as error:
        return None, str(error)
    address = record["inputs"]["teacher"]
    found = [
        version
        for version in client.search_model_versions(f"tags.`rmpipe.address` = '{address}'")
        if version.tags.get("rmpipe.content") == record["read"][address]
    ]
    if not found:
        return None, f"no version with the bytes that {address} had then is registered"
    return max(found, key=lambda version: (_owns(study, version.name), int(version.version))), ""


def _uncrown(client: Any, study: str, keep: dict[tuple[str, str], Any]) -> None:
    """Take a study's aliases from what is no longer best, whatever registered model it is of."""
    for model in every(client.search_registered_models):
        for word in model.aliases:
            if word.startswith(alias(study, model.name, "")) and (model.name, word) not in keep:
                client.delete_registered_model_alias(model.name, word)
