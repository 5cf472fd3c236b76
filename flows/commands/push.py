"""write a model with its card into a folder for the hub; upload it with --upload alone"""

from __future__ import annotations

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path

from flows.commands import DONE, FAILED, complain, names_artifact, tell


def arguments(parser: ArgumentParser) -> None:
    """An address, a name at the hub, and what becomes of the folder."""
    names_artifact(parser)
    parser.add_argument("--hub", metavar="OWNER/NAME", required=True, help="what it is called at the hub")
    text = "where the folder goes, new or empty (default: below $RMPIPE_HOME/published, made anew)"
    parser.add_argument("--out", metavar="DIR", type=Path, help=text)
    parser.add_argument("--upload", action="store_true", help="upload it, with the token of HF_TOKEN or of the login")
    parser.add_argument("--private", action="store_true", help="if its repository is new: for its owner's eyes alone")


def command(options: Namespace) -> int:
    """Write the folder, and say where it lies and what is in it."""
    from rmpipe import publication
    from rmpipe.artifact import open_artifact
    from rmpipe.source import UnreachableError, keep_hub_below
    from rmpipe.store import Store

    store = Store()
    keep_hub_below(store.home)
    artifact = open_artifact(store.resolve(options.address), store.home)
    publication.check_name(options.hub)
    folder = options.out or store.home / "published" / options.hub.replace("/", "--")
    if options.out is None:
        shutil.rmtree(folder, ignore_errors=True)
    folder = publication.write(artifact, options.hub, folder.absolute())
    files = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
    told = {"folder": str(folder), "hub": options.hub, "address": artifact.address, "files": files, "uploaded": None}
    if options.upload:
        try:
            told["uploaded"] = publication.upload(folder, options.hub, private=options.private)
        except UnreachableError as error:
            return complain(options, str(error), FAILED)
    tell(options, told, "\n".join([*(f"{size / 1e6:10.3f} MB  {name}" for name, size in files.items()), *_ends(told)]))
    return DONE


def _ends(told: dict[str, object]) -> list[str]:
    lines = [f"folder   {told['folder']}"]
    if told["uploaded"]:
        return [*lines, f"uploaded {told['uploaded']}"]
    return [*lines, f"nothing was uploaded; with --upload these files go to {told['hub']}"]
