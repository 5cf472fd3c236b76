"""A study from nothing, and again when all of it is there, as a person waits for both.

    python benchmarks/cold.py [STUDY] [--limit 480] [--repeats 5]

Both are timed as a whole process in a home of their own, which is empty before the first and gone after the last: no
base, pair or model is at hand. The second finds every stage in the store. The ratio says how many times sooner; the
second's time is the median over repeats. A first run that takes longer than `--limit` seconds is said to.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    """Time both, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="shift")
    parser.add_argument("--limit", type=float, default=480.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        cold, said = _run(options.study, home)
        cached = [_run(options.study, home) for _ in range(options.repeats)]
    assert all("nothing had to run" in text for _, text in cached), "a second run made something"
    again = statistics.median(seconds for seconds, _ in cached)
    over = f", over the {options.limit:.0f} s that it should take" if cold > options.limit else ""
    print(f"{options.study}, from nothing: {cold:.0f} s{over} ({said.strip().splitlines()[-1]})")
    print(f"again: {again:.2f} s, {cold / again:.0f} times sooner")
    return int(cold > options.limit)


def _run(study: str, home: str) -> tuple[float, str]:
    """Seconds and what was printed.

    Raises:
        SystemExit: the run failed.
    """
    command = [str(Path(sys.executable).with_name("rmpipe")), "run", study]
    begun = time.perf_counter()
    done = subprocess.run(command, env=os.environ | {"RMPIPE_HOME": home}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return time.perf_counter() - begun, done.stdout


if __name__ == "__main__":
    sys.exit(main())
