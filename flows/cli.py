"""`rmpipe run | plan | rank | ...`: verbs on a study or an address, each a file of `flows/commands/`.

Nothing heavy is imported before a command needs it, so that `--help` answers at once and a study whose every stage is a
hit is answered from the records alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from keyword import iskeyword
from typing import Any

from flows.commands import BAD_INPUT, DONE, FAILED, INTERRUPTED, complain

COMMANDS = {
    name: f"flows.commands.{name}{'_' * iskeyword(name)}"
    for name in (
        "new", "run", "plan", "forecast", "rank", "audit", "compare", "why", "show", "verify", "export", "import",
        "adopt", "prompts", "push", "tidy", "doctor", "ui", "schedule"
    )
}  # fmt: skip
"""What a person types, and the module that does it."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 failed, 2 bad input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    from rmpipe.config import StudyError
    from rmpipe.store import StoreError

    try:
        with _ended_cleanly():
            return import_module(COMMANDS[options.command]).command(options)
    except StudyError as error:
        return complain(options, str(error), BAD_INPUT)
    except KeyboardInterrupt:
        text = "interrupted; nothing half-made is left, and the next run goes on from here"
        return complain(options, text, INTERRUPTED)
    except (StoreError, RuntimeError) as error:
        return complain(options, str(error), _code(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # `rmpipe show | head`: nobody listens any more
        return DONE
    except OSError as error:  # a disk that fills up while MLflow or Prefect write, say
        return complain(options, f"{error.filename or 'disk'}: {error.strerror or error}", FAILED)


def _code(error: Exception) -> int:
    outcome = getattr(error, "outcome", None)
    return BAD_INPUT if outcome is not None and outcome.bad_input else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rmpipe", description="Which reward model teaches this policy best?")
    parser.add_argument("--version", action=_Version, nargs=0, help="say which rmpipe this is")
    text = "print what makes a shell complete our commands: bash, zsh, fish or tcsh"
    parser.add_argument("--print-completion", metavar="SHELL", action=_Completion, help=text)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, where in COMMANDS.items():
        module = import_module(where)
        text = str(module.__doc__)
        module.arguments(commands.add_parser(name, help=text, description=text))
    return parser


class _Version(argparse.Action):
    """Looked up when it is asked for, not at each start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"rmpipe {version('rmpipe')}")
        parser.exit()


class _Completion(argparse.Action):
    """`eval "$(rmpipe --print-completion bash)"`, made from the parser itself."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, option: str | None = None) -> None:
        import shtab

        from flows.inquiry import shipped

        if shell not in shtab.SUPPORTED_SHELLS:
            parser.error(f"{option} {shell}: one of {', '.join(shtab.SUPPORTED_SHELLS)}")
        names = " ".join(shipped())
        study = f'_rmpipe_study() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}'
        preamble: Any = {"bash": study}
        print(shtab.complete(parser, shell, preamble=preamble))
        parser.exit()


@contextmanager
def _ended_cleanly() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: cleanly, whatever error a service makes of being cut off."""
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


if __name__ == "__main__":
    sys.exit(main())
