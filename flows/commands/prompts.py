"""the prompts at which a reward model teaches a policy nothing, and the others as data to train on"""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import DONE, speaks_json, tell

if TYPE_CHECKING:
    from rmpipe.artifact import Measurement
    from rmpipe.sieve import Sifting
    from tasks.stage import Step

SHOWN, SAMPLES = 5, 2
"""Prompts that are printed, and responses to each."""
LONGEST = 100
"""Characters of a text that is printed."""
CELL = ("policy", "reward_model", "seed")
"""What tells the measurements of a study apart."""


def arguments(parser: ArgumentParser) -> None:
    """A study and one of its measurements, when a prompt teaches nothing, and where the others go."""
    text = "a TOML file or a shipped study, or the address of a measurement such as `rmpipe adopt` tells"
    study = parser.add_argument("study", metavar="STUDY", help=text)
    study.complete = {"bash": "_rmpipe_study", "zsh": "_files", "tcsh": "f"}  # type: ignore[attr-defined] # for shtab
    text = "change one value of the study"
    parser.add_argument("--set", metavar="A.B=VALUE", action="append", default=[], help=text)
    parser.add_argument("--policy", metavar="NAME", help="whose responses (may be left out where there is but one)")
    parser.add_argument("--reward-model", metavar="NAME", help="whose rewards")
    parser.add_argument("--seed", metavar="N", type=int, help="which seed (default: the study's first)")
    nothing = parser.add_mutually_exclusive_group()
    text = "std of the whitened reward below which a prompt teaches nothing (default: as it was measured)"
    nothing.add_argument("--threshold", metavar="X", type=float, help=text)
    text = "instead, the share of prompts of least std that are said to teach nothing"
    nothing.add_argument("--low", metavar="Q", type=float, help=text)
    text = "write the prompts that teach something, and a list of the others beside them: a file or a folder"
    parser.add_argument("--out", metavar="PLACE", type=Path, help=text)
    text = "for whom: trl (default), verl or openrlhf"
    parser.add_argument("--form", choices=("trl", "verl", "openrlhf"), default="trl", help=text)
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Part the prompts of a measurement that was made, print the flattest, and write the others if asked to."""
    from rmpipe import curriculum

    measurement = _measurement(options)
    config, inputs = _sifting(options, measurement), measurement.inputs
    rollouts, scores, labels = inputs["rollouts"], inputs["scores"], measurement.record["labels"]
    teaching, nothing = curriculum.parted(rollouts, scores, config)
    flattest = curriculum.flattest(rollouts, scores, config.threshold, SHOWN, SAMPLES)
    told: dict[str, Any] = {"measurement": measurement.address, **labels, "prompts": len(teaching) + len(nothing)}
    told |= {"nothing": len(nothing), "rule": curriculum.rule(config), "flattest": flattest}
    lines = _lines(told, labels)
    if options.out is not None:
        source = f"rmpipe/{measurement.record['study'] or labels['policy']}"
        files = curriculum.write(curriculum.as_read(rollouts, teaching), nothing, options.form, source, options.out)
        told |= {"form": options.form, "out": str(files[0]), "left_out": str(files[1])}
        lines += ["", f"wrote     {files[0]}  ({len(teaching)} prompts for {options.form})"]
        lines += [f"left out  {files[1]}  ({len(nothing)})"]
    tell(options, told, "\n".join(lines))
    return DONE


def _sifting(options: Namespace, measurement: Measurement) -> Sifting:
    from pydantic import ValidationError

    from rmpipe.config import StudyError, explain
    from rmpipe.sieve import Sifting

    threshold = measurement.record["config"]["threshold"] if options.threshold is None else options.threshold
    try:
        return Sifting(threshold=threshold, low=options.low)
    except ValidationError as error:
        raise StudyError(f"--{explain(error, Sifting)}") from error


# -- which measurement ------------------------------------------------------------------------------------------------


def _measurement(options: Namespace) -> Measurement:
    """The one that is meant, by its address or by the study that asked for it.

    Raises:
        StudyError: there is none such; names the option and the remedy.
        RuntimeError: the study asks for it, and it was not made yet.
    """
    if "/" in options.study and not options.study.endswith(".toml"):
        return _at(options)
    from flows.inquiry import inquire
    from rmpipe.artifact import Measurement
    from rmpipe.config import StudyError

    inquiry = inquire(options.study, options.set)
    steps = [step for step in inquiry.plan.steps.values() if step.call.stage.name == "measure"]
    if not steps:
        told = f"{options.study}: its question, {inquiry.study.flow}, measures no reward model under a policy"
        raise StudyError(f"{told}; name a study of the question teach, or the address of a measurement")
    for label in CELL:
        steps = _chosen(steps, label, getattr(options, label))
    if steps[0].status != "hit":
        words = ["rmpipe", "run", options.study, *(word for change in options.set for word in ("--set", change))]
        told = f"{steps[0].call.title} ({steps[0].address}) has not been made"
        raise RuntimeError(f"{told}; first: {shlex.join([*words, '--only', 'measure'])}")
    return Measurement(steps[0].address, inquiry.plan.store.home)


def _at(options: Namespace) -> Measurement:
    from rmpipe.artifact import Measurement, open_artifact
    from rmpipe.config import StudyError
    from rmpipe.store import Store

    store = Store()
    found = open_artifact(store.resolve(options.study), store.home)
    if given := [f"--{name.replace('_', '-')}" for name in (*CELL, "set") if getattr(options, name)]:
        raise StudyError(f"{', '.join(given)}: {found.address} is of one cell already; leave it out")
    if not isinstance(found, Measurement) or not {"rollouts", "scores"} <= found.record["inputs"].keys():
        raise StudyError(f"{found.address}: not a measurement of rewards over rollouts; name one such as measure/...")
    return found


def _chosen(steps: list[Step], label: str, asked: Any) -> list[Step]:
    """The measurements of one policy, reward model or seed."""
    from rmpipe.config import StudyError, nearest

    names = list(dict.fromkeys(str(step.call.labels[label]) for step in steps))
    name = names[0] if asked is None and (label == "seed" or len(names) == 1) else asked
    option = f"--{label.replace('_', '-')}"
    if name is None:
        raise StudyError(f"{option}: missing; one of {', '.join(names)}")
    if str(name) not in names:
        raise StudyError(f"{option} {name}: not in this study; {nearest(str(name), names)}")
    return [step for step in steps if str(step.call.labels[label]) == str(name)]


# -- what is said -----------------------------------------------------------------------------------------------------


def _lines(told: dict[str, Any], labels: dict[str, str]) -> list[str]:
    """How many, and the flattest with their responses."""
    where = f"{labels.get('reward_model', 'rewards')} on {labels.get('policy', 'rollouts')}"
    seed = f", seed {labels['seed']}" if "seed" in labels else ""
    when = f"a prompt does where {told['rule']}"
    lines = [f"{where}{seed}: {told['nothing']} of {told['prompts']} sampled prompts teach nothing ({when})", ""]
    for row in told["flattest"]:
        lines.append(f"std {row['white_std']:.3f}  mean {row['mean']:.3f}  {_short(row['prompt'])}")
        lines += [f"{each['reward']:>25.3f}  {_short(each['response'])}" for each in row["responses"]]
    return lines


def _short(text: Any) -> str:
    from rmpipe.text import readable

    words = " ".join(readable(text).split())
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"
