"""open MLflow and Prefect on this store, on loopback"""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace

from flows.commands import DONE, port


def arguments(parser: ArgumentParser) -> None:
    """A port."""
    text = "MLflow's (default: 5000), the next free one if it is in use; Prefect's is the first free from 4200"
    parser.add_argument("--port", type=port, default=5000, help=text)


def command(options: Namespace) -> int:
    """Serve both until Ctrl-C; what MLFLOW_TRACKING_URI or PREFECT_API_URL names is served by others, and only told."""
    from flows.progress import whisper
    from flows.server import Place, using
    from rmpipe.lineage import Ledger
    from rmpipe.store import Store

    whisper("starting MLflow and Prefect ...")
    home, theirs = Store().home, "PREFECT_API_URL" in os.environ
    try:
        with Ledger(home).serving(options.port) as pages, using(home) as api:
            print(f"MLflow    {pages.ready()}   (its runs are under Model training)", flush=True)
            print(f"Prefect   {api.removesuffix('/api')}", flush=True)
            if theirs and pages.server is None:
                return DONE
            print("Ctrl-C ends what was started here", flush=True)
            while True:
                pages.check()
                if not (theirs or Place(home).told()):
                    raise RuntimeError(f"Prefect's server has ended; what it said is in {Place(home).log}")
                time.sleep(0.5)
    except KeyboardInterrupt:
        return DONE
