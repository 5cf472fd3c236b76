"""run a study again and again: what is new in its data is made, all else is a hit"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands import BAD_INPUT, DONE, complain, duration, speaks_json, tell
from flows.commands.rank import names_study
from flows.commands.run import how_it_is_run

if TYPE_CHECKING:
    from flows.schedule import Listed, Schedule


def arguments(parser: ArgumentParser) -> None:
    """A study and when; or what to do with the schedules that are there."""
    names_study(parser, optional=True)
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--cron", metavar="FIELDS", help='five fields, as in "0 3 * * *"')
    when.add_argument("--every", metavar="TIME", type=duration, help="30m, 6h, 1d12h")
    when.add_argument("--list", action="store_true", help="say what is scheduled, next and last")
    when.add_argument("--remove", metavar="NAME", help="take a schedule away; what it made stays")
    parser.add_argument("--only", metavar="STAGE", action="append", default=[], help="stop after these stages")
    parser.add_argument("--name", help="what it is called (default: the study's name)")
    parser.add_argument("--timezone", metavar="ZONE", help="Europe/Berlin, say (default: this machine's)")
    parser.add_argument("--pool", help="leave it to the workers of this work pool, instead of serving it here")
    parser.add_argument("--strict", action="store_true", help="take no hit whose code or inputs have changed")
    how_it_is_run(parser)
    parser.set_defaults(jobs=None)  # as many as the machine has on which it runs
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Register and serve one schedule, or serve all that are registered; or list, or remove one."""
    from rmpipe.store import Store

    home = Store().home
    if options.list:
        return _list(options, home)
    if options.remove:
        return _remove(options, home)
    if (options.study is None) != (options.cron is None and options.every is None):
        text = 'a study goes with --cron "0 3 * * *" or --every 6h; without any, all that are registered are served'
        return complain(options, text, BAD_INPUT)
    return _serve(options, home)


def _serve(options: Namespace, home: Path) -> int:
    from flows.progress import whisper
    from flows.schedule import register, registered, serve
    from flows.server import using

    mine = [_asked(options)] if options.study else None
    if options.pool and mine:
        register(home, mine[0])
        tell(options, {"registered": mine[0].name}, f"{mine[0].name}: the workers of {options.pool} run it")
        return DONE
    whisper("starting Prefect ...")
    with using(home) as api:
        schedules = mine or registered(home)
        if not schedules:
            return complain(options, 'nothing is scheduled; first: rmpipe schedule STUDY --cron "0 3 * * *"', BAD_INPUT)
        names = ", ".join(schedule.name for schedule in schedules)
        text = f"serving {names}; Prefect is on {api.removesuffix('/api')}; Ctrl-C ends it, and pauses them"
        tell(options, {"serving": [schedule.name for schedule in schedules], "prefect": api}, text)
        with suppress(KeyboardInterrupt, SystemExit):
            serve(home, schedules)
    return DONE


def _asked(options: Namespace) -> Schedule:
    """The schedule that the options ask for; its study is read and planned now, so that a fault is told now."""
    from flows.inquiry import STUDIES, find_study, inquire
    from flows.schedule import Schedule
    from flows.server import configure
    from rmpipe.store import Store

    configure(Store().home)

    file = find_study(options.study)
    study = inquire(options.study, options.set, only=options.only, strict=options.strict).study
    parameters = {
        "study": options.study if file.parent == STUDIES else str(file.absolute()),
        "changes": options.set, "only": options.only, "jobs": options.jobs, "threads": options.threads,
        "keep_going": options.keep_going, "strict": options.strict,
    }  # fmt: skip
    schedule = Schedule(
        options.name or study.name, study.flow, parameters, options.cron, options.every, options.timezone, options.pool
    )
    schedule.timing()  # refuses what Prefect does not know
    return schedule


def _list(options: Namespace, home: Path) -> int:
    from flows.schedule import listed

    found = listed(home)
    lines = [line for schedule in found for line in _lines(schedule)]
    tell(options, {"schedules": [schedule.json() for schedule in found]}, "\n".join(lines) or "nothing is scheduled")
    return DONE


def _lines(schedule: Listed) -> list[str]:
    changes = f" with {', '.join(schedule.changes)}" if schedule.changes else ""
    lines = [f"{schedule.name}: {schedule.study}{changes}, {schedule.when}, {schedule.state}"]
    if schedule.next:
        lines.append(f"  next  {schedule.next}")
    if schedule.last:
        lines.append(f"  last  {schedule.last}: {schedule.said}")
    return lines


def _remove(options: Namespace, home: Path) -> int:
    from flows.schedule import remove

    remove(home, options.remove)
    tell(options, {"removed": options.remove}, f"{options.remove}: removed")
    return DONE
