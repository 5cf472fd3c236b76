"""tell which reward model will teach each policy best, before any RLHF is paid for"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from shlex import quote
from textwrap import fill
from typing import TYPE_CHECKING, Any

from flows.commands import DONE, positive, speaks_json, tell
from flows.commands.rank import names_study
from flows.commands.run import how_it_is_run, made

if TYPE_CHECKING:
    from flows.inquiry import Inquiry
    from rmpipe.artifact import Forecast, Race, Rollouts
    from rmpipe.study import Study
    from rmpipe.teaching import Teaching


def arguments(parser: ArgumentParser) -> None:
    """A study, where its labels are from, and how it is run."""
    names_study(parser)
    labels = parser.add_mutually_exclusive_group()
    text = (
        "the policy's own responses with labels, or as pairs, in the place of the ground truth's; as foresight.labels"
    )
    labels.add_argument("--labels", metavar="FILE", help=text)
    text = "instead, write responses of each policy to be labelled"
    labels.add_argument("--to-label", metavar="FILE", type=Path, help=text)
    text = "instead, draw and label as little as settles who is foretold to teach best, as [racing] says"
    labels.add_argument("--race", action="store_true", help=text)
    parser.add_argument("--prompts", metavar="N", type=positive, help="with --to-label: of how many prompts")
    parser.add_argument("--responses", metavar="K", type=positive, help="with --to-label: how many to each")
    text = "reward models whose RLHF may be paid for, so that gains are told in reward units; as foresight.calibrate"
    parser.add_argument("--calibrate", metavar="NAMES", help=f"{text} (a,b)")
    how_it_is_run(parser)
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Make what a forecast needs, which no RLHF is among unless it is asked for, and print it."""
    from flows.inquiry import inquire

    _check_options(options)
    if options.to_label is not None:
        return _to_label(options)
    if options.race:
        return _race(options)
    inquiry = inquire(options.study, _changes(options))
    _check(options, inquiry)
    inquiry.plan.keep(("forecast",))
    _, said = made(options, inquiry)
    found = _forecast(inquiry)
    took = _took(inquiry)
    tail = f"took     {took:.0f} s of computing for samples, scores, gradients and itself\nbrowse   rmpipe ui\n{said}"
    told = {"said": said, "address": found.address, "seconds": took, **found.answer()}
    tell(options, told, f"{(found.path / 'table.txt').read_text()}\n{tail}")
    return DONE


def _check_options(options: Namespace) -> None:
    """Refuse an option that another leaves nothing to say to.

    Raises:
        StudyError: names both, with the remedy.
    """
    from rmpipe.config import StudyError

    if options.to_label is None:
        for name in ("prompts", "responses"):
            if getattr(options, name) is not None:
                told = f"--{name} {getattr(options, name)}: says how many --to-label writes"
                raise StudyError(f"{told}; give --to-label FILE, or leave it out")
    if options.labels == "":
        raise StudyError("--labels: empty; name a file, or leave it out")
    other = "--race" if options.race else "--to-label" if options.to_label is not None else None
    if other and options.calibrate is not None:
        told = f"--calibrate {options.calibrate}: pays for RLHF to scale a forecast by, and {other} makes none"
        raise StudyError(f"{told}; leave one of both out")


def _took(inquiry: Inquiry) -> float:
    """Seconds of all jobs together that a forecast takes beside the models it is of."""
    own = ("sample", "grade", "score", "differentiate", "rehearse", "forecast")
    steps = [address for address, step in inquiry.plan.steps.items() if step.call.stage.name in own]
    return sum((inquiry.plan.store.record(address) or {}).get("seconds") or 0.0 for address in steps)


def _changes(options: Namespace) -> list[str]:
    """What the options say of the study."""
    changes = list(options.set)
    if options.labels is not None:
        changes.append(f"foresight.labels={options.labels}")
    if options.calibrate is not None:
        changes.append(f"foresight.calibrate={[name.strip() for name in options.calibrate.split(',')]}")
    return changes


def _check(options: Namespace, inquiry: Inquiry) -> None:
    """Refuse a study that has nothing to forecast, or nothing to tell it by.

    Raises:
        StudyError: says which, with the remedy.
    """
    from rmpipe.config import StudyError

    _teaching(options, inquiry.study)
    if all(step.call.stage.name != "forecast" for step in inquiry.plan.steps.values()):
        told = f"{options.study}: no ground_truth, and no labels, so that nothing says who is right"
        raise StudyError(f"{told}; name a reward model as ground_truth, or give --labels FILE")


def _teaching(options: Namespace, study: Study) -> Teaching:
    """A study of the only question that has forecasts.

    Raises:
        StudyError: it asks another.
    """
    from rmpipe.config import StudyError
    from rmpipe.teaching import Teaching

    if not isinstance(study, Teaching):
        told = f"{options.study}: its question, {study.flow}, teaches no policy by RLHF"
        raise StudyError(f"{told}; name a study of the question teach")
    return study


def _forecast(inquiry: Inquiry) -> Forecast:
    from rmpipe.artifact import Forecast

    address = next(a for a, step in inquiry.plan.steps.items() if step.call.stage.name == "forecast")
    return Forecast(address, inquiry.plan.store.home)


# -- a race -----------------------------------------------------------------------------------------------------------


def _race(options: Namespace) -> int:
    """Race the reward models for each policy and algorithm of each seed, and print how each race ended."""
    from flows.inquiry import inquire
    from rmpipe.config import StudyError
    from rmpipe.verdict import WIDTH

    races: dict[str, Race] = {}

    def ask(study: Any) -> None:
        from flows.teach import Lesson

        _teaching(options, study)
        if study.ground_truth is None:
            told = f"{options.study}: no ground_truth, and a race asks it for labels as it goes"
            raise StudyError(f"{told}; name one, or label a pool: --to-label FILE")
        if study.foresight.labels is not None:
            told = f"{options.study}: foresight.labels: {study.foresight.labels.path}, and a race asks the ground truth"
            raise StudyError(f"{told} for labels as it goes; leave out --race, or the file")
        lessons = {seed: Lesson(study, seed) for seed in study.seeds}
        for cell in study.cells():
            name = f"{cell.policy}, {cell.algorithm}, seed {cell.seed}"
            races[name] = races.get(name) or lessons[cell.seed].race(cell.policy, cell.algorithm)

    inquiry = inquire(options.study, options.set, also=ask)
    inquiry.plan.narrow(race.address for race in races.values())
    _, said = made(options, inquiry)
    told = [{"title": name, "address": race.address, **race.answer()} for name, race in races.items()]
    lines = [fill(f"{each['title']}: {each['sentence']}", WIDTH, subsequent_indent="  ") for each in told]
    tell(options, {"said": said, "races": told}, "\n".join([*lines, "", "browse   rmpipe ui", said]))
    return DONE


# -- what is to be labelled -------------------------------------------------------------------------------------------


def _to_label(options: Namespace) -> int:
    """Sample each policy of the first seed, and write what it said."""
    from flows.inquiry import inquire
    from rmpipe.config import StudyError
    from rmpipe.labelling import write

    if options.to_label.exists():
        raise StudyError(f"--to-label {options.to_label}: there already; give another name")
    if options.responses == 1:
        raise StudyError("--responses 1: labels of one response do not vary; ask for two a prompt at least")
    drawn: dict[str, Rollouts] = {}

    def ask(study: Any) -> None:
        from flows.teach import Lesson

        _teaching(options, study)
        for name in ("prompts", "responses"):
            asked, there = getattr(options, name), getattr(study.sampling, name)
            if asked and there and asked > there:
                told = f"--{name} {asked}: sampling.{name} = {there}"
                raise StudyError(f"{told}; raise it there: --set sampling.{name}={asked}")
        lesson = Lesson(study, study.seeds[0])
        drawn.update({cell.policy: lesson.rollouts(cell.policy) for cell in study.cells()})

    inquiry = inquire(options.study, options.set, also=ask)
    inquiry.plan.narrow(rollouts.address for rollouts in drawn.values())
    _, said = made(options, inquiry)
    count = write(drawn, options.to_label, options.prompts, options.responses)
    text = f"{count} responses of {', '.join(drawn)} are in {options.to_label}: put a number in place of each null"
    least = _teaching(options, inquiry.study).foresight.fewest
    if options.prompts and options.prompts < least:
        text += f"; a forecast takes labels of {least} prompts at least (foresight.fewest)"
    changes = "".join(f" --set {quote(each)}" for each in options.set)
    following = f"then     rmpipe forecast {options.study}{changes} --labels {options.to_label}"
    tell(options, {"said": said, "file": str(options.to_label), "rows": count}, f"{text}\n{following}\n{said}")
    return DONE
