"""two studies, runs or artifacts side by side: what was told differently, and what came out differently"""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from flows.commands import DONE, speaks_json, tell

if TYPE_CHECKING:
    from rmpipe.ancestry import Ancestry, Change
    from rmpipe.answer import Form
    from rmpipe.artifact import Artifact, Ranking
    from rmpipe.comparison import Number, Row
    from rmpipe.interval import Estimate
    from rmpipe.store import Store

WIDTH = 120
RUN, CODE = "[0-9a-f]{32}", "[0-9a-f]{12}"
SAYS = {
    "rank": "which reward model teaches a policy best",
    "judge": "which reward model is most accurate on each set of pairs",
    "weigh": "which preference pairs push the preferred response away",
    "conclude": "where the gradient of a reward vanishes, and what cures it",
}
"""What the answer of each question says."""
MANY = 3
"""Artifacts beyond which those of a change are counted, not named; so too definitions of code."""


def arguments(parser: ArgumentParser) -> None:
    """Two things of one kind."""
    text = "a study, an address or its first digits, or the id of an MLflow run"
    parser.add_argument("a", metavar="A", help=text)
    parser.add_argument("b", metavar="B", help="what to compare it with: of the same stage, or a study too")
    text = "change one value of the study B; A stays as its file has it"
    parser.add_argument("--set", metavar="A.B=VALUE", action="append", default=[], help=text)
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Print what was told differently, what was made differently, and what came out, B less A."""
    from rmpipe.ancestry import Ancestry
    from rmpipe.artifact import Ranking
    from rmpipe.store import Store

    store = Store()
    a, b = _find(options.a, [], store), _find(options.b, options.set, store)
    told: dict[str, Any] = {side: {"address": x.address, "title": _title(x)} for side, x in (("a", a), ("b", b))}
    if a.address == b.address:
        text = f"{options.a} and {options.b}: the same address, {a.address}; nothing differs"
        tell(options, told | {"same": True}, text)
        return DONE
    _check_alike(a, b)
    found = Ancestry.of(a, b)
    lines = [*(f"{side}  {x.address}  {_title(x)}" for side, x in (("A", a), ("B", b))), "", *_differs(found)]
    rankings = isinstance(a, Ranking) and isinstance(b, Ranking)
    came_out, more = _of_rankings(a, b) if rankings else _of_artifacts(a, b)  # type: ignore[arg-type]
    told |= {"same": False, "told": [each.json() for each in found.told], "made": [each.json() for each in found.made]}
    tell(options, told | {"not_followed": found.lost} | came_out, "\n".join([*lines, *more]).rstrip())
    return DONE


# -- what is compared -------------------------------------------------------------------------------------------------


def _find(text: str, changes: list[str], store: Store) -> Artifact:
    """What a person names; of a study or a report, the ranking."""
    from rmpipe.artifact import Report, open_artifact
    from rmpipe.config import StudyError

    address = not text.endswith(".toml") and ("/" in text or bool(re.fullmatch(f"{CODE}|{RUN}", text)))
    if not address or Path(text).is_file():
        return _answer(text, changes)
    if changes:
        raise StudyError(f"--set changes a study, and {text} is none; make B a study, or leave --set out")
    named = _made_by(text, store) if re.fullmatch(RUN, text) else store.resolve(text)
    artifact = open_artifact(named, store.home)
    return artifact.inputs["ranking"] if isinstance(artifact, Report) else artifact


def _answer(name: str, changes: list[str]) -> Artifact:
    """The ranking that a study ends in."""
    from flows.inquiry import inquire

    inquiry = inquire(name, changes)
    plan, ranking = inquiry.plan, inquiry.ranking
    if plan.steps[ranking.address].status != "hit":
        told = shlex.join(["rmpipe", "run", name, *(word for change in changes for word in ("--set", change))])
        raise RuntimeError(f"{len(plan.to_run)} of {len(plan.steps)} stages have not been made; first: {told}")
    return ranking


def _made_by(run: str, store: Store) -> str:
    """The address that a run made, or the report that a study's run ended in."""
    from rmpipe.config import StudyError

    for address in store.all():
        if (store.record(address) or {}).get("run_id") == run:
            return address
    from rmpipe.lineage import Ledger

    if report := Ledger(store.home).report_of(run):
        return report
    remedy = "an artifact's run may have been followed by another that made it again; look for its address in MLflow"
    raise StudyError(
        f"{run}: no run that made anything in {store.root}, nor a study's that ended in a report; {remedy}"
    )


def _check_alike(a: Artifact, b: Artifact) -> None:
    from rmpipe.config import StudyError

    stages = [x.record["stage"] for x in (a, b)]
    if stages[0] != stages[1] and a.record["kind"] == b.record["kind"] == "Ranking":
        told = "; ".join(
            f"{x.address} ({_title(x)}) says {SAYS.get(x.record['stage'], 'something else')}" for x in (a, b)
        )
        raise StudyError(f"{told}: they answer unlike questions and have no number in common; compare two of one flow")
    if stages[0] != stages[1]:
        told = f"{a.address} is of stage {stages[0]}, {b.address} of stage {stages[1]}"
        raise StudyError(f"{told}; compare two of one stage, or two studies (or their reports, rankings and runs)")


def _title(artifact: Artifact) -> str:
    record = artifact.record
    study = (record["config"].get("about") or {}).get("study", "") if record["kind"] == "Ranking" else ""
    return ", ".join(part for part in (f"{record['title']} {study}".strip(), record["summary"]) if part)


# -- what differs -----------------------------------------------------------------------------------------------------


def _differs(found: Ancestry) -> list[str]:
    """What was told, and made, differently."""
    lines = ["told differently, A -> B", *map(_line, found.told)]
    if not found.told:
        lines = ["nothing that could be followed was told differently"]
    lines += [f"  {text}" for text in found.lost]
    code = [change for change in found.made if change.name.startswith("code.")]
    rest = [change for change in found.made if change not in code]
    if found.made:
        lines += ["", "made differently, which no address tells", *_code(code), *map(_line, rest)]
    return [part for line in [*lines, ""] for part in wrap(line, WIDTH, subsequent_indent="      ") or [""]]


def _line(change: Change) -> str:
    titles = list(dict.fromkeys(title for _, title in change.where))
    name = f"{titles[0].split()[0]}.{change.name}" if len(change.stages) == 1 else change.name
    counts = [_counted(stage, [s for s, _ in change.where].count(stage)) for stage in change.stages]
    where = "" if titles == change.stages[:1] else f"  ({', '.join(titles if len(titles) <= MANY else counts)})"
    return f"  {name}: {_shown(change.a)} -> {_shown(change.b)}{where}"


def _counted(stage: str, count: int) -> str:
    return stage if count == 1 else f"{stage} x {count}"


def _code(changes: list[Change]) -> Iterator[str]:
    """Definitions that have changed, in one line."""
    if changes:
        names = [change.name.removeprefix("code.") for change in changes]
        more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
        yield f"  code: {', '.join(names[:MANY])}{more}"


def _shown(value: Any) -> str:
    from json import dumps

    from rmpipe.ancestry import ABSENT

    text = "(none)" if value is ABSENT else value if isinstance(value, str) else dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


# -- what came out ----------------------------------------------------------------------------------------------------


def _of_artifacts(a: Artifact, b: Artifact) -> tuple[dict[str, Any], list[str]]:
    from rmpipe.comparison import numbers

    found, same = numbers(a, b), a.content == b.content
    told = {"same_bytes": same, "numbers": [number.json() for number in found]}
    if same or not found:
        return told, ["came out: the same bytes" if same else "came out: other bytes; it has no numbers of its own"]
    shown = [number for number in found if not number.name.startswith("control_")]
    apart = [number for number in shown if number.a != number.b or number.difference.value]
    equal = ", ".join(number.name for number in shown if number not in apart)
    lines = ["came out, B less A", *_table([[number.name, *_cells(number)] for number in apart], ["number"])]
    lines += _wrapped(f"equal: {equal}") if equal else []
    lines += _wrapped("the controls of its accuracies: --json") if len(shown) < len(found) else []
    return told, [*lines, *_notes(apart, {})]


def _of_rankings(a: Ranking, b: Ranking) -> tuple[dict[str, Any], list[str]]:
    from rmpipe.answer import Form
    from rmpipe.comparison import claims, rows

    (both, only_a, only_b), judged, form = rows(a, b), claims(a, b), Form.of(a.answer())
    told = {"rows": [row.json() for row in both], "only_a": only_a, "only_b": only_b, "claims": judged}
    lines = ["came out, B less A", ""]
    for where in dict.fromkeys(row.names[:2] for row in both):
        lines += _block(", ".join(where), [row for row in both if row.names[:2] == where], form)
    lines += [*_alone("A", only_a), *_alone("B", only_b)]
    lines += _judged(judged)
    return told, [*lines, *_notes([number for row in both for number in row.numbers], form.numbers)]


def _alone(side: str, cells: list[tuple[str, ...]]) -> list[str]:
    lines = []
    for where in dict.fromkeys(cell[:2] for cell in cells):
        lines += _wrapped(f"only in {side}: {', '.join(where)}: {', '.join(c[2] for c in cells if c[:2] == where)}")
    return [*lines, ""] if lines else []


def _block(title: str, rows: list[Row], form: Form) -> list[str]:
    """The rows that are ranked together: a line a number, and in one line those of which nothing is to be told."""
    lines = []
    for row in (row for row in rows if row.numbers):
        names = [row.names[2], _change(*row.ranks)]
        for index, number in enumerate(row.numbers):
            lines.append([*(names if index == 0 else ["", ""]), form.numbers[number.name], *_cells(number)])
    same = [f"{row.names[2]} ({_change(*row.ranks)})" for row in rows if not row.numbers]
    told = _table(lines, [form.ranked, "rank", "number"]) if lines else []
    words = f"the same artifacts, on the {form.unit}s that both have"
    return [title, *told, *(_wrapped(f"{words}: {', '.join(same)}") if same else []), ""]


def _change(a: str, b: str) -> str:
    return a if a == b else f"{a} -> {b}"


def _cells(number: Number) -> list[str]:
    marks = {True: "told apart", False: "not told apart", None: "no interval"}
    sides = ["-" if side is None else str(side) for side in (number.a, number.b)]
    return [*sides, _finer(number.difference), marks[number.apart]]


def _finer(difference: Estimate) -> str:
    """A difference with a decimal more than its sides: an end that is near 0 shows on which side of it it is."""
    value, low, high = (f"{round(x, 3) + 0.0:.3f}" for x in (difference.value, difference.low, difference.high))
    if not isfinite(difference.value):
        return "-"
    return f"{value} [{low}, {high}]" if isfinite(difference.low) else value


def _table(lines: list[list[str]], names: list[str]) -> list[str]:
    lines = [[*names, "A", "B", "B - A", ""], *lines]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def _judged(claims: list[dict[str, Any]]) -> list[str]:
    lines = []
    for claim in claims:
        where = ", ".join(claim[key] for key in ("policy", "reward", "algorithm") if claim.get(key))
        lines += _wrapped(f"claim {claim['name']} ({where}): another verdict", f"A  {claim['a']}", f"B  {claim['b']}")
    return [*lines, ""] if lines else []


def _notes(numbers: list[Number], words: dict[str, str]) -> list[str]:
    """How the intervals were made; which numbers, where not all alike."""
    ways: dict[str, list[str]] = {}
    for number in numbers:
        ways.setdefault(number.how, []).append(words.get(number.name, number.name))
    said = [f"{way}{f': {_listed(names)}' if len(ways) > 1 else ''}" for way, names in ways.items()]
    if any(number.name.endswith("_gain") for number in numbers):
        said.append("gains are in standard deviations of each reward under its own initial policy")
    end = "95 % intervals, uncorrected for how many there are; told apart: that of B - A leaves 0 out"
    return _wrapped(*said, end) if numbers else []


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _wrapped(*texts: str) -> list[str]:
    return [line for text in texts for line in wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")]
