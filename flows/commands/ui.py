"""open MLflow on this store, on loopback"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from flows.commands import port


def arguments(parser: ArgumentParser) -> None:
    """A port."""
    parser.add_argument("--port", type=port, default=5000, help="the next free one is taken if it is in use")


def command(options: Namespace) -> int:
    """Serve MLflow on this store until Ctrl-C."""
    from rmpipe.lineage import Ledger
    from rmpipe.store import Store

    return Ledger(Store().home).serve(options.port)
