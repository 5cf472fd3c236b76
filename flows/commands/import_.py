"""bring what `export` wrote into this store, checked, with its lineage"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands import DONE, speaks_json, tell

if TYPE_CHECKING:
    from rmpipe.arrival import Arrival


def arguments(parser: ArgumentParser) -> None:
    """A folder."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="a folder that `rmpipe export` wrote")
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Check a parcel whole, then take in what the store does not have, and say what became of each address."""
    from rmpipe.arrival import take_in
    from rmpipe.parcel import Parcel
    from rmpipe.store import Store

    store, arrivals = Store(), []
    for arrival in take_in(Parcel.read(options.folder), store):
        arrivals.append(arrival)
        if not options.json and arrival.how != "told":
            print(_line(arrival), flush=True)
    count = {how: [a.address for a in arrivals if a.how == how] for how in ("arrived", "there", "kept", "told")}
    told = {**count, "notes": {a.address: list(a.notes) for a in arrivals if a.notes}}
    total = f"{len(count['arrived'])} arrived, {len(count['there']) + len(count['kept'])} were there"
    records = f", and the records of {len(count['told'])} more that they came from" if count["told"] else ""
    tell(options, told, total + records)
    return DONE


def _line(arrival: Arrival) -> str:
    return "\n".join([f"{arrival.how:<8} {arrival.address}", *(f"  {note}" for note in arrival.notes)])
