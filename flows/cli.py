"""`rmpipe run | plan | rank | why | show | verify | ui`: verbs on a study or an address.

Nothing heavy is imported before a command needs it, so that `--help` answers at once and a study whose every stage is a
hit is answered from the records alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmpipe.artifact import Ranking, Report
    from rmpipe.study import Study
    from tasks.stage import Plan

STUDIES = Path(__file__).parent / "studies"
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 failed, 2 bad input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    from rmpipe.config import StudyError
    from rmpipe.store import StoreError

    try:
        return COMMANDS[options.command](options)
    except StudyError as error:
        return _complain(str(error), BAD_INPUT, options)
    except KeyboardInterrupt:
        return _complain(
            "interrupted; nothing half-made is left, and the next run goes on from here", INTERRUPTED, options
        )
    except (StoreError, RuntimeError) as error:
        return _complain(str(error), _code(error), options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # `rmpipe show | head`: nobody listens any more
        return DONE
    except OSError as error:  # a disk that fills up while MLflow or Prefect write, say
        return _complain(f"{error.filename or 'disk'}: {error.strerror or error}", FAILED, options)


def _code(error: Exception) -> int:
    outcome = getattr(error, "outcome", None)
    return BAD_INPUT if outcome is not None and outcome.bad_input else FAILED


def _complain(text: str, code: int, options: argparse.Namespace) -> int:
    print(f"rmpipe {options.command}: {text}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rmpipe", description="Which reward model teaches this policy best?")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, operand: str, help_text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(operand, metavar=operand.upper(), help=help_text)
        return command

    known = "a TOML file, or one of " + ", ".join(sorted(path.stem for path in STUDIES.glob("*.toml")))
    for name, text in (
        ("run", "make what a study asks for, and print its answer"),
        ("plan", "say what would run, and why; nothing is made"),
        ("rank", "print a study's answer from the records"),
    ):
        command = add(name, text, "study", known)
        command.add_argument(
            "--set", metavar="A.B=VALUE", action="append", default=[], help="change one value of the study"
        )
        if name != "rank":
            command.add_argument("--only", metavar="STAGE", action="append", default=[], help="stop after these stages")
            command.add_argument("--refresh", metavar="STAGE", action="append", default=[], help="make these again")
            text = "take no hit whose code or inputs have changed: make it again"
            command.add_argument("--strict", action="store_true", help=text)
        if name == "run":
            command.add_argument(
                "--jobs", "-j", type=_positive, default=os.cpu_count() or 1, help="stages at a time (default: cores)"
            )
            command.add_argument(
                "--threads", type=_positive, default=1, help="threads a stage (default: 1); moves last bits of results"
            )
    add(
        "why",
        "where an artifact came from, and what sets it apart from its nearest sibling",
        "address",
        "stage/48195f80cea8, or its first digits",
    )
    add("show", "what an artifact holds", "address", "stage/48195f80cea8, or its first digits")
    text = "hash everything in the store and name what was altered"
    verify = commands.add_parser("verify", help=text, description=text)
    verify.add_argument("address", nargs="*", metavar="ADDRESS", help="only these; all by default")
    for command in commands.choices.values():
        command.add_argument(
            "--json", action="store_true", help="one JSON document on standard output, nothing else there"
        )
    ui = commands.add_parser("ui", help="open MLflow on this store, on loopback")
    ui.add_argument("--port", type=_port, default=5000, help="the next free one is taken if it is in use")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not 1024 <= _positive(text) <= 65_000:
        raise argparse.ArgumentTypeError(f"expected a port from 1024 to 65000, got {text}")
    return int(text)


# -- studies --------------------------------------------------------------------------------------------------------


def find_study(name: str) -> Path:
    """A study by file or by the name of a shipped one.

    Raises:
        StudyError: neither; the shipped names are listed.
    """
    from rmpipe.config import StudyError, nearest

    if name.endswith(".toml") or Path(name).is_file():
        return Path(name)
    shipped = {path.stem: path for path in STUDIES.glob("*.toml")}
    if name not in shipped:
        raise StudyError(f"{name}: no such study; {nearest(name, list(shipped))}; or give a .toml file")
    return shipped[name]


def planned(options: argparse.Namespace) -> tuple[Study, Plan, Report]:
    """Read a study and ask its flow what it needs; nothing runs."""
    from flows.teach import teach
    from rmpipe.store import Store
    from rmpipe.study import Study
    from tasks.stage import planning

    file = find_study(options.study)
    _import_from(file.absolute().parent)
    study = Study.read(file, options.set)
    strict, refresh = getattr(options, "strict", False), tuple(getattr(options, "refresh", ()))
    with planning(Store(), strict=strict, refresh=refresh) as plan:
        report = teach(study)
    plan.check_names(refresh, "--refresh")
    if only := tuple(getattr(options, "only", ())):
        plan.keep(only)
    return study, plan, report


def _import_from(folder: Path) -> None:
    """Let a study name functions of modules beside it, here and in the workers, after whatever is installed."""
    if folder != STUDIES:
        sys.path.append(str(folder))
        known = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([known, str(folder)] if known else [str(folder)])


def run(options: argparse.Namespace) -> int:
    """Make what is missing and print the answer."""
    study, plan, report = planned(options)
    if not plan.to_run:
        said = f"nothing had to run: all {len(plan.steps)} stages are in the store"
        return _answer(options, _recall(study, plan, report), report, said)
    from flows.conduct import conduct
    from rmpipe.source import keep_hub_below

    keep_hub_below(plan.store.home)
    study.check_sources()
    with _ended_cleanly():
        steps = conduct(plan, report, question=study.flow, study=study.name, jobs=options.jobs, threads=options.threads)
    made = sum(step["status"] == "made" for step in steps)
    return _answer(options, steps, report, f"{made} of {len(steps)} stages ran")


def _recall(study: Study, plan: Plan, report: Report) -> list[dict[str, Any]]:
    """Answer from the records alone: say what a hit should say, and leave MLflow a note of the invocation."""
    from flows.conduct import plan_summary
    from flows.progress import hit_notes
    from rmpipe.lineage import note

    for text in hit_notes(plan):
        print(text, file=sys.stderr)
    steps = plan_summary(plan)
    note(plan.store.home, {"study": study.name, "question": study.flow, "report": report.address, "addresses": steps})
    return steps


@contextlib.contextmanager
def _ended_cleanly() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: cleanly, whatever error a service makes of being cut off."""
    told: list[int] = []

    def stop(number: int, _: Any) -> None:
        told.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except Exception:
        if told:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _answer(options: argparse.Namespace, steps: list[dict[str, Any]], report: Report, said: str) -> int:
    if report.address not in {step["address"] for step in steps}:  # --only stopped before it
        _print(options, {"said": said, "stages": steps}, said)
        return DONE
    ranking: Ranking = report.inputs["ranking"]
    where = f"report   {report.page}\nbrowse   rmpipe ui\n{said}"
    _print(
        options,
        {"said": said, "report": str(report.page), **rows(ranking)},
        f"{ranking.path.joinpath('table.txt').read_text()}\n{where}",
    )
    return DONE


def rows(ranking: Ranking) -> dict[str, Any]:
    """The part of an answer that `--json` prints."""
    answer = ranking.answer()
    return {key: answer[key] for key in ("study", "rows", "correlations", "contrasts", "sentences")}


def _print(options: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(value, ensure_ascii=False) if options.json else text, flush=True)


def plan_command(options: argparse.Namespace) -> int:
    """Print what would run, and why."""
    _, plan, _ = planned(options)
    steps = [step.json() for step in plan.steps.values()]
    lines = [_line(step) for step in steps]
    total = f"{len(plan.to_run)} of {len(steps)} stages to run"
    _print(options, {"stages": steps, "to_run": len(plan.to_run)}, "\n".join([*lines, total]))
    return DONE


def _line(step: dict[str, Any]) -> str:
    name, _, code = step["address"].partition("/")
    title = step["title"].removeprefix(name).strip(" ·")
    said, more = "; ".join(step["why"][:3]), len(step["why"]) - 3
    return (
        f"  {name:<9} {code}  {step['status']:<4} {title:<34} {said}{f'; and {more} more' if more > 0 else ''}".rstrip()
    )


def rank(options: argparse.Namespace) -> int:
    """Print the answer from the records."""
    _, plan, report = planned(options)
    if plan.to_run:
        text = f"{len(plan.to_run)} of {len(plan.steps)} stages have not been made; first: rmpipe run {options.study}"
        return _complain(text, FAILED, options)
    ranking = report.inputs["ranking"]
    text = (ranking.path / "table.txt").read_text()
    _print(options, rows(ranking), f"{text}\nreport   {report.page}")
    return DONE


# -- addresses ------------------------------------------------------------------------------------------------------


def why(options: argparse.Namespace) -> int:
    """An artifact's record, its parents, and what differs from its nearest sibling."""
    from rmpipe.artifact import open_artifact
    from rmpipe.config import StudyError, flatten
    from rmpipe.store import Store

    store = Store()
    artifact = open_artifact(store.resolve(options.address), store.home)
    record = artifact.record
    sibling, differs = store.nearest(record, but=artifact.address) or (None, [])
    parents = dict(record["inputs"])
    with contextlib.suppress(StudyError):  # one of them is gone: their addresses alone
        parents = artifact.inputs
    parents = {name: value for name, value in parents.items() if value}
    told = {"address": artifact.address, "record": record, "nearest": sibling, "differs": differs}
    lines = [
        repr(artifact),
        f"  {record['title']}, made {record['created']} in {record['seconds']} s",
        f"  commit {record['commit'] or 'unknown'}, MLflow run {record['run_id']}",
        *(f"  {name:<24} {_shown(value)}" for name, value in flatten(record["config"]).items()),
        *(f"  from {name}: {_shown(handle)}" for name, handle in parents.items()),
        f"  nearest sibling: {sibling or 'none'}",
        *(f"    {line}" for line in differs),
    ]
    _print(options, told, "\n".join(lines))
    return DONE


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 160 else text[:157] + "..."


def show(options: argparse.Namespace) -> int:
    """What an artifact holds, as text."""
    from rmpipe.artifact import open_artifact
    from rmpipe.store import Store

    store = Store()
    artifact = open_artifact(store.resolve(options.address), store.home)
    files = {name: entry["size"] for name, entry in artifact.record["files"].items()}
    told: dict[str, Any] = {"address": artifact.address, "path": str(artifact.path), "files": files}
    told |= {name: artifact.record[name] for name in ("kind", "summary", "metrics")}
    lines = [
        repr(artifact),
        f"  {artifact.path}",
        *(f"  {value:>14.4f}  {name}" for name, value in told["metrics"].items()),
    ]
    lines += [f"  {size:>14,}  {name}" for name, size in files.items()]
    if not options.json and artifact.main:
        lines += ["", artifact.table().head(8).to_string(max_colwidth=48)]
    _print(options, told, "\n".join(lines))
    return DONE


def verify(options: argparse.Namespace) -> int:
    """Hash every file of the store; altered artifacts are named and will be made again."""
    from rmpipe.store import Store

    store = Store()
    wanted = [store.resolve(text) for text in options.address] or store.all()
    altered = {address: list(files) for address in wanted if (files := store.verify(address))}
    lines = [
        f"altered  {address}: {', '.join(files)}; the next run makes it again" for address, files in altered.items()
    ]
    _print(
        options,
        {"checked": len(wanted), "altered": altered},
        "\n".join([*lines, f"{len(wanted)} artifacts checked, {len(altered)} altered"]),
    )
    return FAILED if altered else DONE


def ui(options: argparse.Namespace) -> int:
    """Serve MLflow on this store until Ctrl-C."""
    from rmpipe.lineage import Ledger
    from rmpipe.store import Store

    with _ended_cleanly():
        return Ledger(Store().home).serve(options.port)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": run, "plan": plan_command, "rank": rank, "why": why, "show": show, "verify": verify, "ui": ui,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
