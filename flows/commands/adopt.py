"""measure rewards and rollouts that other programs made: a file of prompts, responses and rewards"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from flows.commands import DONE, speaks_json, tell

if TYPE_CHECKING:
    from rmpipe.adoption import Adopted, Adopting
    from rmpipe.artifact import Measurement, Rollouts
    from rmpipe.store import Store
    from tasks.stage import Plan

NUMBERS = {
    "variance": "variance", "flat_share": "teaches nothing", "accuracy_on": "acc. on", "covariance": "covariance",
}  # fmt: skip
"""The numbers of a reward model that the table has."""
CONTROLS = {"longer": "the longer response", "shorter": "the shorter", "constant": "neither", "random": "one by a coin"}
"""What the controls of an accuracy prefer."""
WIDTH = 120


def arguments(parser: ArgumentParser) -> None:
    """A file, and what its rewards are called."""
    text = "JSONL of prompt, responses and rewards (a list, or an object of lists), or of prompt, response and reward"
    parser.add_argument("file", metavar="ROLLOUTS", help=text)
    text = "what rewards without a name are called (default: as the file)"
    parser.add_argument("--name", metavar="NAME", help=text)
    text = "whose rewards stand for what people want (default: truth, where there are such)"
    parser.add_argument("--truth", metavar="COLUMN", help=text)
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Check the file whole, make what is missing of it, and print what can be told of each reward model."""
    import sys

    from flows.progress import hit_notes
    from rmpipe.adoption import Adopting, adopted
    from rmpipe.store import Store

    store, config = Store(), Adopting(path=options.file, name=options.name, truth=options.truth)
    found = adopted(config)
    plan, rollouts, measurements = _asked(config, found, store)
    for text in hit_notes(plan):
        print(text, file=sys.stderr)
    _make(plan)
    told = _told(found, rollouts, measurements)
    made = f"{len(plan.to_run)} of {len(plan.steps)} stages ran" if plan.to_run else "nothing had to run"
    tell(options, {"said": made, **told}, "\n".join([*_lines(told), made]))
    return DONE


def _asked(config: Adopting, found: Adopted, store: Store) -> tuple[Plan, Rollouts, dict[str, Measurement]]:
    """What is needed of a file: its rollouts, the scores of each reward model, and a measurement of each."""
    from rmpipe.teaching import Measuring
    from tasks.adopt import adopt, adopt_scores
    from tasks.measure import measure
    from tasks.stage import labelled, planning

    scores, measurements = {}, {}
    with planning(store) as plan:
        with labelled(policy=config.called):
            rollouts = adopt(config, found.content)
        for name in found.rewards:
            with labelled(policy=config.called, reward_model=name):
                scores[name] = adopt_scores(config, name, found.content_of(name), rollouts)
        truth = scores[found.truth] if found.truth else None
        for name in found.rewards:
            with labelled(policy=config.called, reward_model=name):
                measurements[name] = measure(Measuring(), scores[name], None, rollouts, truth)
    return plan, rollouts, measurements


def _make(plan: Plan) -> None:
    """In this process: there is nothing to wait for but MLflow."""
    from tasks.execution import perform

    if plan.to_run:
        plan.store.check_writable()
    for step in plan.to_run:
        perform(step.call, plan.store)


# -- what is said -----------------------------------------------------------------------------------------------------


def _told(found: Adopted, rollouts: Rollouts, measurements: dict[str, Measurement]) -> dict[str, Any]:
    models = [
        {"name": name, "truth": name == found.truth, "scores": each.inputs["scores"].address,
         "measurement": each.address, "numbers": each.numbers()}
        for name, each in measurements.items()
    ]  # fmt: skip
    counts = {"prompts": len(found.rows), "responses": len(found.rows[0]["responses"])}
    return {"rollouts": rollouts.address, **counts, "lengths": rollouts.unit, "reward_models": models}


def _lines(told: dict[str, Any]) -> list[str]:
    """The table, what an accuracy must beat, and the addresses to go on with."""
    models = told["reward_models"]
    known = [name for name in NUMBERS if any(name in model["numbers"] for model in models)]
    table = [["reward model", *(NUMBERS[name] for name in known), ""]]
    for model in models:
        cells = [_shown(model["numbers"].get(name)) for name in known]
        table.append([f"{model['name']}{' *' if model['truth'] else ''}", *cells, model["measurement"]])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
    said = f"{told['prompts']} prompts, {told['responses']} responses each. In brackets: 95 % intervals over prompts."
    said += f" Variance and covariance are of whitened rewards. {_beaten(told)}"
    lines += ["", *wrap(said, WIDTH)]
    return [*lines, "", f"rollouts  rmpipe show {told['rollouts']}", *_next(models)]


def _beaten(told: dict[str, Any]) -> str:
    """What the accuracies must beat, which is the same for every reward model."""
    numbers = told["reward_models"][0]["numbers"]
    if "control_on_longer" not in numbers:
        return "Nothing stands for what people want (--truth), so nothing says who is right."
    rules = [f"{text} {_shown(numbers[f'control_on_{name}'])}" for name, text in CONTROLS.items()]
    beaten = f"An accuracy must beat that of preferring {', '.join(rules)}, lengths in {told['lengths']}."
    return f"* stands for what people want. {beaten}"


def _next(models: list[dict[str, Any]]) -> list[str]:
    first = models[0]["measurement"]
    return [f"browse    rmpipe show {first}", f"prompts   rmpipe prompts {first}"]


def _shown(number: dict[str, float] | None) -> str:
    from rmpipe.interval import Estimate

    return "-" if number is None else str(Estimate.of(number))
