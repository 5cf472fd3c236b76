"""look at models and preference pairs, and write a study about them that runs as it is"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import DONE, speaks_json, tell

if TYPE_CHECKING:
    from rmpipe.draft import Draft
    from rmpipe.prospect import Model


def arguments(parser: ArgumentParser) -> None:
    """A file to be written, and what it is to be about."""
    parser.add_argument("study", metavar="STUDY", type=Path, help="the TOML file to write")
    place = "PATH_OR_ID"
    text = "a language model that is to be taught: a folder or a hub id; several may be named"
    parser.add_argument("--policy", metavar=place, action="append", required=True, help=text)
    text = "pairs of a prompt, a chosen and a rejected response: a file, a folder or a hub id"
    parser.add_argument("--preferences", metavar=place, required=True, help=text)
    text = "a reward model to compare, beside one that is trained here on the pairs; several may be named"
    parser.add_argument("--reward-model", metavar=place, action="append", default=[], help=text)
    text = (
        "what stands for what people want: a better reward model, a function as module:name, or the name of one of ours"
    )
    parser.add_argument("--ground-truth", metavar=place, help=text)
    text = "the policy's own responses with labels, from which `rmpipe forecast` foretells who teaches best: rows of "
    text += "prompt, response and label, of lists of the latter two, or of prompt, chosen and rejected"
    parser.add_argument("--labels", metavar="FILE", help=text)
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Look, write the study, and say what was seen and assumed."""
    _check_place(options.study, options.force)
    draft = _draft(options)
    draft.check()
    text = draft.text()
    stages = _written(options.study, text)
    seen = [dict(zip(("what", "place", "seen"), each, strict=True)) for each in draft.seen()]
    told = {"study": str(options.study), "stages": stages, "seen": seen, "assumed": [*draft.assumed()]}
    tell(options, told, _said(options.study, stages, draft))
    return DONE


def _check_place(file: Path, force: bool) -> None:
    """Refuse a place where no study may be written, before anything is looked at."""
    from rmpipe.config import StudyError

    if file.suffix != ".toml":
        raise StudyError(f"{file}: a study is a TOML file; give a name that ends in .toml")
    if not file.absolute().parent.is_dir():
        raise StudyError(f"{file}: no folder {file.parent}; make it first")
    if file.exists() and not (force and file.is_file()):
        raise StudyError(f"{file}: there already; give another name, or --force to write over it")


def _draft(options: Namespace) -> Draft:
    """What is to be written, once everything has been looked at."""
    from rmpipe.source import keep_hub_below
    from rmpipe.store import Store

    keep_hub_below(Store().home)  # before what follows, which reads where that is
    import datasets
    import torch
    import transformers

    from rmpipe.corpus import preferences
    from rmpipe.draft import Draft
    from rmpipe.prospect import language_model, reward_model

    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    policies = [language_model(place, "--policy") for place in dict.fromkeys(options.policy)]
    scorers = [reward_model(place, "--reward-model") for place in dict.fromkeys(options.reward_model)]
    truth = _truth(options.ground_truth)
    pairs = preferences(options.preferences, messages=policies[0].template)
    return Draft(options.study, policies, scorers, pairs, truth, torch.cuda.is_available(), options.labels)


def _truth(named: str | None) -> str | Model | None:
    """A function by its name, or a model."""
    from rmpipe.config import StudyError, nearest
    from rmpipe.prospect import reward_model
    from rmpipe.truth import REGISTERED

    if named is None or named in REGISTERED or ":" in named:
        return named
    if "/" not in named and not Path(named).exists():
        told = f"neither a folder nor one of ours; {nearest(named, list(REGISTERED))}, or module:function"
        raise StudyError(f"--ground-truth: {named}: {told}")
    return reward_model(named, "--ground-truth")


def _written(file: Path, text: str) -> int:
    """Write a study that can be planned and whose sources can be used; the number of its stages.

    Raises:
        StudyError: it cannot; nothing is written.
    """
    from flows.inquiry import inquire
    from rmpipe.config import StudyError

    part = file.with_name(f".{file.stem}.part.toml")
    try:
        part.write_text(text, encoding="utf-8")
        inquiry = inquire(str(part))
        inquiry.check_sources()
        part.replace(file)
    except StudyError as error:
        raise StudyError(str(error).replace(str(part), str(file))) from error
    finally:
        part.unlink(missing_ok=True)
    return len(inquiry.plan.steps)


def _said(file: Path, stages: int, draft: Draft) -> str:
    """For a person: what was seen and assumed, and what to type next."""
    wide = max(len(what) for what, _, _ in draft.seen())
    lines: list[Any] = [f"{what:<{wide}}  {place}: {told}" for what, place, told in draft.seen()]
    lines += ["", "Assumed:", *(f"- {text}" for text in draft.assumed()), ""]
    lines += [f"{file}: {stages} stages, seeds {', '.join(map(str, draft.seeds))}"]
    lines += [
        f"what it takes   rmpipe doctor {file}",
        f"what it does    rmpipe plan {file}",
        f"the answer      rmpipe run {file}",
    ]
    lines += [f"foretold        rmpipe forecast {file}"] if draft.labels else []
    return "\n".join(lines)
