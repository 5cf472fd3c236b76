"""A model of the store as a folder for the hub: weights, tokenizer, configuration and card; uploaded if asked to be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rmpipe.artifact import Artifact, RewardModel, Weights
from rmpipe.config import StudyError, first_line
from rmpipe.leaflet import REFERENCE, Leaflet
from rmpipe.source import UnreachableError, unreachable

LEFT_OUT = ("training_args.bin", "optimizer.pt", "rng_state*", "README.md", ".*")
"""Files beside a model's that are no part of it."""


class PublicationError(RuntimeError):
    """The hub did not take a model; says why and what to do."""


def write(artifact: Artifact, hub: str, folder: Path) -> Path:
    """Write a model's folder, whole or not at all.

    Args:
        artifact: a reward model that was trained here, or a language model.
        hub: OWNER/NAME.
        folder: where to; new or empty.

    Returns:
        the folder, which `from_pretrained` loads.

    Raises:
        StudyError: there is nothing to publish of it, the name will not do, or the folder is in use.
    """
    check_name(hub)
    check(artifact)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StudyError(f"{folder}: not empty; name a folder that is new or empty by --out")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _fill(artifact, hub, part)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _fill(artifact: Any, hub: str, folder: Path) -> None:
    leaflet = Leaflet(artifact, hub)
    _copy(artifact.model, folder)
    if leaflet.kind == "implicit" and leaflet.asked.reference:
        _copy(artifact.base, folder / REFERENCE)
    if isinstance(artifact, RewardModel):
        _name_reward(folder / "config.json")
    leaflet.card().save(folder / "README.md")


def _copy(model: Path, folder: Path) -> None:
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for file in folder.glob("*.json"):
        _forget(file)


def _forget(file: Path) -> None:
    """Take out of a configuration where its model lay on this machine."""
    told = json.loads(file.read_text())
    places = ("_name_or_path", "name_or_path")
    if isinstance(told, dict) and any(Path(str(told.get(name, ""))).is_absolute() for name in places):
        kept = {name: value for name, value in told.items() if name not in places}
        file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def _name_reward(file: Path) -> None:
    """Call the one output of a classifier what it is."""
    told = json.loads(file.read_text())
    if told.get("id2label") == {"0": "LABEL_0"}:
        told |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
        file.write_text(json.dumps(told, indent=2) + "\n")


def check_name(hub: str) -> None:
    """Refuse what is no OWNER/NAME.

    Raises:
        StudyError: says the form.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(hub)
        owner, _, name = hub.partition("/")
        if not owner or not name:
            raise HFValidationError("no owner")
    except HFValidationError as error:
        raise StudyError(f"--hub {hub}: no name of the hub; give OWNER/NAME, such as me/my-reward-model") from error


def check(artifact: Artifact) -> None:
    """Refuse what has no weights of its own to publish.

    Raises:
        StudyError: names the address, why, and what to give.
    """
    record = artifact.record
    if artifact.only_told:
        raise StudyError(f"{artifact.address}: its record only is here, and no weights; run its study to have them")
    if isinstance(artifact, RewardModel):
        if record["stage"] != "train":
            told = f"{record['summary'].partition(':')[0] or 'derived'}, made of no weights that were trained here"
            remedy = "give the address of a reward model that was trained (train/...)"
            raise StudyError(f"{artifact.address}: {told}; {remedy}")
    elif not isinstance(artifact, Weights):
        remedy = "give a reward model (train/...) or a policy (finetune/..., align/..., prefer/...)"
        raise StudyError(f"{artifact.address}: a {record['kind'].lower()} and no model; {remedy}")
    elif record["stage"] == "fetch" and "@" in str(record["config"].get("content", "")):
        content = record["config"]["content"]
        raise StudyError(f"{artifact.address}: it is on the hub as it is ({content}); there is nothing to add")


def upload(folder: Path, hub: str, *, private: bool = False) -> str:
    """Make a repository, if it is not there, and upload a folder to it, with the token of the environment or the login.

    Returns:
        where it can be seen.

    Raises:
        UnreachableError: the hub did not answer.
        PublicationError: it did not take it.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="rmpipe")
    try:
        place = api.create_repo(hub, repo_type="model", private=private, exist_ok=True)
        api.upload_folder(repo_id=hub, repo_type="model", folder_path=folder, commit_message="Upload by rmpipe")
    except Exception as error:
        again = f"the folder is at {folder}; try again with --upload"
        if unreachable(error):
            raise UnreachableError(f"{hub}: the hub cannot be reached ({first_line(error)}); {again}") from error
        remedy = "log in by `hf auth login`, or set HF_TOKEN to a token that may write there"
        raise PublicationError(f"{hub}: the hub did not take it ({first_line(error)}); {remedy}; {again}") from error
    return str(place)
