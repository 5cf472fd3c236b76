"""hash everything in the store and name what was altered"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from flows.commands import DONE, FAILED, speaks_json, tell


def arguments(parser: ArgumentParser) -> None:
    """Addresses, or none for all."""
    parser.add_argument("address", nargs="*", metavar="ADDRESS", help="only these; all by default")
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Hash every file; altered artifacts are named and will be made again."""
    from rmpipe.store import Store

    store = Store()
    wanted = [store.resolve(text) for text in options.address] or store.all()
    altered = {address: list(files) for address in wanted if (files := store.verify(address))}
    lines = [f"altered  {each}: {', '.join(files)}; the next run makes it again" for each, files in altered.items()]
    total = f"{len(wanted)} artifacts checked, {len(altered)} altered"
    tell(options, {"checked": len(wanted), "altered": altered}, "\n".join([*lines, total]))
    return FAILED if altered else DONE
