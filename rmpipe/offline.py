"""Drawing by vLLM: `python -P offline.py ASKED DRAWN`, run by the Python that has vLLM and needs nothing else.

`rmpipe.engine` asks it: one JSON file in, one JSON file out.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any


def drawn(asked: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """K samples a prompt: its tokens, the end of sequence included, and their log-probability.

    Args:
        asked: as `rmpipe.engine.request` makes it.
    """
    from vllm import LLM, SamplingParams

    how = [SamplingParams(seed=seed, **asked["drawing"]) for seed in asked["seeds"]]
    outputs = LLM(**asked["model"]).generate(asked["prompts"], how, use_tqdm=False)
    return [
        [{"ids": list(one.token_ids), "logprob": one.cumulative_logprob} for one in output.outputs]
        for output in outputs
    ]


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written: it returns when the parent closes the pipe, or ends
    os.killpg(0, signal.SIGKILL)  # vLLM's own processes too


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    Path(sys.argv[2]).write_text(json.dumps(drawn(json.loads(Path(sys.argv[1]).read_text()))))
