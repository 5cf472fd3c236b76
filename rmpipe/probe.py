"""What costs seconds to find out, asked in processes of their own: none is imported here, and none holds us up."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PATIENCE = 5.0  # seconds for a server or the hub to answer
DEVICES = """
import json, warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import torch
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "said": [str(each.message) for each in said],
                  "found": [f"{each.name}, {each.total_memory / 2**30:.0f} GiB" for each in found]}))
"""
PREFECT = "import prefect.server.api.server"
HUB = f"""
import os, urllib.error, urllib.request
place = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
try:
    urllib.request.urlopen(urllib.request.Request(place, method="HEAD"), timeout={PATIENCE})
except urllib.error.HTTPError as error:
    if error.code >= 500:
        raise
print(place)
"""


@dataclass(frozen=True)
class Asked:
    """A program under way in a process of its own."""

    process: subprocess.Popen[str]

    def answer(self, seconds: float) -> tuple[str, str]:
        """What it printed, and what went wrong."""
        try:
            said, errors = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return "", f"no answer within {seconds:.0f} s"
        lines = errors.strip().splitlines() or [f"exit code {self.process.returncode}"]
        return said.strip(), lines[-1] if self.process.returncode else ""


@contextmanager
def asked(program: str) -> Iterator[Asked]:
    """Begin a program; it is ended with the context, whether it has answered or not."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PREFECT_HOME": folder, "PREFECT_SERVER_UI_STATIC_DIRECTORY": folder}
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=environment,
        )  # fmt: skip
        try:
            yield Asked(process)
        finally:
            process.kill()
            process.communicate()
