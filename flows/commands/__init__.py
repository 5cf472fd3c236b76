"""One file a command: its docstring is its help, `arguments` declares what it takes, `command` does it.

What all of them share is here: how they exit, speak and count. Nothing heavy is imported at the top of any: `--help`
must answer at once.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import timedelta
from typing import Any

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
UNITS = ("weeks", "days", "hours", "minutes", "seconds")
ADDRESS = "stage/48195f80cea8, or its first digits"


def tell(options: Namespace, value: Any, text: str) -> None:
    """Print a command's answer: for a program as one JSON document, for a person as text."""
    print(json.dumps(value, ensure_ascii=False) if options.json else text, flush=True)


def complain(options: Namespace, text: str, code: int) -> int:
    """Say on standard error why a command ends so; the exit code."""
    print(f"rmpipe {options.command}: {text}", file=sys.stderr)
    return code


def speaks_json(parser: ArgumentParser) -> None:
    """Declare `--json`."""
    text = "one JSON document on standard output, nothing else there"
    parser.add_argument("--json", action="store_true", help=text)


def names_artifact(parser: ArgumentParser) -> None:
    """Declare an address."""
    parser.add_argument("address", metavar="ADDRESS", help=ADDRESS)
    speaks_json(parser)


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def port(text: str) -> int:
    """A port that needs no rights."""
    if not 1024 <= positive(text) <= 65_000:
        raise ArgumentTypeError(f"expected a port from 1024 to 65000, got {text}")
    return int(text)


def duration(text: str) -> timedelta:
    """A time such as `7d`, `36h`, `1d12h` or `2w`, in falling units."""
    found = re.fullmatch("".join(rf"(?:(?P<{unit}>\d+){unit[0]})?" for unit in UNITS), text)
    if not text or not found:
        raise ArgumentTypeError(f"expected a time such as 7d, 36h, 1d12h or 30m, got {text!r}")
    return timedelta(**{unit: int(number) for unit, number in found.groupdict().items() if number})
