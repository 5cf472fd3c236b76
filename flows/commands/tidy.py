"""delete what no study named, registered version or recent work needs: artifacts, rows of MLflow, runs of Prefect"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flows.commands import BAD_INPUT, DONE, FAILED, complain, duration, speaks_json, tell

if TYPE_CHECKING:
    from rmpipe.garbage import Kept, Piece
    from rmpipe.store import Store

WHY = {
    "studies": "for the studies named",
    "registered": "for versions registered in MLflow (--unregister lets go of those with the alias of a seed alone)",
    "young": "for their age",
}


def arguments(parser: ArgumentParser) -> None:
    """What to keep, and whether to ask."""
    text = "keep all that this study asks for today: a TOML file or a shipped one"
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=text)
    text = "keep what is younger, with all that it was made from: 7d, 36h, 1d12h, 2w"
    parser.add_argument("--older-than", metavar="AGE", type=duration, help=text)
    text = "let registered versions go too whose only alias is the seed that each has"
    parser.add_argument("--unregister", action="store_true", help=text)
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would go, and delete nothing")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Say what can go and why the rest stays; delete it once a person has agreed."""
    if not options.studies and options.older_than is None:
        text = "nothing says what to keep; name the studies to keep, or an age: rmpipe tidy pocket, --older-than 7d"
        return complain(options, text, BAD_INPUT)
    from rmpipe.config import StudyError
    from rmpipe.store import Store

    store = Store()
    if not store.root.is_dir():
        raise StudyError(f"{store.home}: no store there to tidy; name one by RMPIPE_HOME")
    with store.lock("tidy", waiting=_refuse):
        return _tidy(options, store)


def _refuse(holder: dict[str, Any]) -> None:
    from rmpipe.store import StoreError

    raise StoreError(f"process {holder['pid']} has been tidying this store since {holder['since']}; wait for its end")


def _tidy(options: Namespace, store: Store) -> int:
    before = time.time() - (options.older_than or timedelta()).total_seconds()
    survey = _survey(options, store, before)
    if options.dry_run or not survey.pieces:
        return _told(options, survey, None, "nothing was deleted" if survey.pieces else "nothing can go")
    if not options.yes:
        if not sys.stdin.isatty():
            _told(options, survey, None, "nothing was deleted")
            return complain(options, "nobody to ask whether to delete that; -y deletes it without", BAD_INPUT)
        if not _agreed(options, survey):
            return DONE
        if _survey(options, store, before) != survey:
            return complain(options, "the store has changed while you were asked; nothing was deleted", FAILED)
    gone = _clear(options, survey)
    return _told(options, survey, gone, f"{_bytes(_size(gone))} freed")


@dataclass(frozen=True)
class Survey:
    """What is in a store: what stays, and what can go."""

    store: Store = field(compare=False)
    kept: Kept
    pieces: list[Piece]
    notes: list[str]


def _survey(options: Namespace, store: Store, before: float) -> Survey:
    """Look through the store, MLflow and Prefect; runs that were killed are closed first, as any command does it.

    Raises:
        StoreError: a run is under way.
    """
    from flows.history import ended
    from rmpipe import retention
    from rmpipe.garbage import keep, pieces, under_way
    from rmpipe.lineage import Ledger
    from rmpipe.store import StoreError

    if busy := under_way(store.home):
        raise StoreError(f"{store.home}: {busy[0]} is under way; wait for its end, it needs what is there")
    addresses, names = _asked(options.studies)
    ledger, registered, notes = Ledger(store.home), set[str](), []
    told = retention.exists(ledger)
    if told:
        ledger.prepare()
        registered = retention.registered(ledger, before, automatic=not options.unregister)
    kept = keep(store, addresses, registered, before)
    found = pieces(store, kept, before)
    if told:
        rows, note = retention.rows(ledger, kept.all, names, before, automatic=not options.unregister)
        found, notes = [*found, *rows], [note]
    flow_runs, note = ended(store.home, names, before)
    return Survey(store, kept, [*found, *flow_runs], [each for each in [*notes, note] if each])


def _asked(studies: list[str]) -> tuple[set[str], set[str]]:
    """The addresses and the names of the studies to keep."""
    from flows.inquiry import inquire

    inquiries = [inquire(name) for name in studies]
    return {address for each in inquiries for address in each.plan.steps}, {each.study.name for each in inquiries}


def _agreed(options: Namespace, survey: Survey) -> bool:
    print(_table(survey.pieces, survey), file=sys.stderr)
    print("delete? [y/N] ", end="", file=sys.stderr, flush=True)
    agreed = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not agreed:
        tell(options, _document(survey, None), "nothing was deleted")
    return agreed


def _clear(options: Namespace, survey: Survey) -> list[Piece]:
    """Delete; what was deleted.

    The store goes first, each artifact under its lock: rows follow only what is truly gone. Whatever is killed between
    the two leaves rows that the next tidying finds, for it asks what stays, not what is there.
    """
    from flows.history import database, forget
    from flows.progress import whisper
    from rmpipe import retention
    from rmpipe.garbage import Piece, remove, shrink
    from rmpipe.lineage import Ledger

    store = survey.store
    on_disk = [piece for piece in survey.pieces if piece.path]
    gone = [piece for piece in on_disk if remove(store, piece)]
    held = {piece.address for piece in on_disk if piece not in gone}
    rows = [piece for piece in survey.pieces if piece.kind == retention.KIND and piece.address not in held]
    databases = []
    if rows:
        whisper(f"deleting {len(rows)} rows of MLflow and their files ...")
        gone += retention.drop(Ledger(store.home), rows, automatic=not options.unregister)
        databases.append(store.home / "mlflow.db")
    if runs := [piece for piece in survey.pieces if piece.kind == "Prefect"]:
        whisper(f"deleting {len(runs)} flow runs of Prefect, whose server is started for it ...")
        gone += forget(store.home, runs)
        databases.append(database(store.home))
    freed = [Piece("databases", file.name, file.name, shrink(file)) for file in databases]
    return [*gone, *(piece for piece in freed if piece.size)]


# -- what is said -----------------------------------------------------------------------------------------------------


def _told(options: Namespace, survey: Survey, gone: list[Piece] | None, said: str) -> int:
    told = _document(survey, gone)
    lines = [_table(survey.pieces if gone is None else gone, survey)]
    lines += [f"left: {name}: somebody holds it, or has named it meanwhile" for name in told["left"]]
    tell(options, told, "\n".join([*lines, said]))
    return DONE


def _document(survey: Survey, gone: list[Piece] | None) -> dict[str, Any]:
    """What `--json` prints: what can go, or what has gone and what of it had to be left."""
    pieces = survey.pieces if gone is None else gone
    lines = [
        {"kind": kind, "of": of, "count": len(each), "bytes": _size(each), "names": [piece.name for piece in each]}
        for (kind, of), each in _grouped(pieces).items()
    ]
    told = {"deleted": gone is not None, "goes": lines, "bytes": _size(pieces)}
    left = [] if gone is None else [piece.name for piece in survey.pieces if piece not in gone]
    return told | {"left": left, "kept": survey.kept.counts(survey.store), "notes": survey.notes}


def _table(pieces: list[Piece], survey: Survey) -> str:
    """What goes, a line a kind, and why the rest stays."""
    lines = [
        f"{kind:<12} {of:<22} {len(each):>6} {_bytes(_size(each)) if _size(each) else '':>10}"
        for (kind, of), each in _grouped(pieces).items()
    ]
    lines += [f"{'together':<35} {len(pieces):>6} {_bytes(_size(pieces)):>10}"] if pieces else []
    kept = [f"{count} {WHY[reason]}" for reason, count in survey.kept.counts(survey.store).items() if count]
    lines += [f"artifacts that stay: {', '.join(kept) or 'none'}", *survey.notes]
    return "\n".join(lines)


def _grouped(pieces: list[Piece]) -> dict[tuple[str, str], list[Piece]]:
    found = defaultdict(list)
    for piece in pieces:
        found[piece.kind, piece.of].append(piece)
    return found


def _size(pieces: list[Piece]) -> int:
    return sum(piece.size for piece in pieces)


def _bytes(size: int) -> str:
    from rich.filesize import decimal

    return decimal(size)
