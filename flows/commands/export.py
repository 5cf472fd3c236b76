"""write artifacts, with the records of all they came from, into a folder for another store"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from flows.commands import ADDRESS, DONE, speaks_json, tell


def arguments(parser: ArgumentParser) -> None:
    """Addresses and a folder."""
    parser.add_argument("address", nargs="+", metavar="ADDRESS", help=ADDRESS)
    parser.add_argument("folder", metavar="DIR", type=Path, help="where to; a folder that is new or empty")
    text = "carry the files of all they came from too: a report carried whole is a finished study on arrival"
    parser.add_argument("--whole", action="store_true", help=text)
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Write a parcel, and say what is in it."""
    from rmpipe.parcel import pack
    from rmpipe.store import Store

    store = Store()
    asked = [store.resolve(text) for text in options.address]
    manifest, notes = pack(store, asked, options.folder, whole=options.whole)
    folder = options.folder.absolute()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    told = {"folder": str(folder), "asked": list(manifest.asked), "artifacts": len(manifest.store)}
    told |= {"records": len(manifest.ancestry), "bytes": size, "notes": notes}
    records = f" and the records of {len(manifest.ancestry)} more" if manifest.ancestry else ""
    artifacts = "1 artifact" if len(manifest.store) == 1 else f"{len(manifest.store)} artifacts"
    lines = [f"{artifacts}{records}, {size / 1e6:.1f} MB", f"bring it in   rmpipe import {folder}"]
    tell(options, told, "\n".join([*notes, *lines]))
    return DONE
