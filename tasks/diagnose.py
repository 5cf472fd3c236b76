"""What can be told of preference pairs before any training on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rmpipe import policy, similarity
from rmpipe.algorithm import paired_ids
from rmpipe.artifact import Diagnosis, Preferences, Weights
from rmpipe.attribution import over_pairs, spearman
from rmpipe.config import StudyError, in_one_line
from rmpipe.diagnosis import LENGTH, Diagnosing
from rmpipe.preference import records
from rmpipe.store import write_whole
from tasks.execution import Log
from tasks.stage import stage

CHUNK = 512
"""Pairs that a kill may cost."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@stage(version=1)
def diagnose(config: Diagnosing, base: Weights, preferences: Preferences, *, out: Path, log: Log) -> Diagnosis:
    """CHES, its length-normalised form and other similarities of each pair, for one forward pass of each response.

    2410.08847, section 5 and Definition 2: pairs of high similarity are said to displace the preferred response. The
    difference in length stands beside them as a control.

    Args:
        base: the language model that is to be trained on the pairs.
    """
    import pandas as pd

    rows = records(preferences.split(config.split)[: config.limit], ("id", "prompt", "chosen", "rejected"))
    table = pd.concat(list(_chunks(config, policy.load(base.model, base.dtype), rows, log)), ignore_index=True)
    asked = [json.dumps(row["prompt"]) for row in rows]
    texts = pd.DataFrame({name: [row[name] for row in rows] for name in ("id", "chosen", "rejected")})
    texts.insert(1, "prompt", asked)
    pd.concat([texts, table], axis=1).to_parquet(out / "pairs.parquet", index=False)
    numbers = _numbers(table, list(config.similarities))
    (out / "measurement.json").write_text(json.dumps(numbers, indent=1))
    values = {name: number["value"] for name, number in numbers.items() if number}
    alike = values.get(f"ches.{LENGTH}")
    told = "" if alike is None else f", Spearman of CHES with the difference in length {alike:.2f}"
    return Diagnosis.at(out, f"{len(rows)} pairs{told}", **values)


def _chunks(config: Diagnosing, model: policy.LanguageModel, rows: list[dict[str, Any]], log: Log) -> Iterator[Any]:
    """The numbers of every pair, some pairs at a time; those that a killed run had done are read back."""
    import pandas as pd

    for start in range(0, len(rows), CHUNK):
        part, file = rows[start : start + CHUNK], log.scratch / f"pairs-{start:09d}.json"
        if not file.exists():
            write_whole(file, json.dumps(_measured(config, model, part)))
        yield pd.DataFrame(json.loads(file.read_text()))
        log.progress(start + len(part), len(rows))


def _measured(config: Diagnosing, model: policy.LanguageModel, rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """A column each of lengths, likelihoods and similarities."""
    import numpy as np

    ids = [
        (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in paired_ids(model.tokenizer, rows, None)
    ]
    names = ("chosen_tokens", "rejected_tokens", "chosen_logprob", "rejected_logprob", *config.similarities)
    columns = {name: np.empty(len(rows)) for name in names}
    keys = [row["id"] for row in rows]
    for index, states, chosen, rejected in similarity.states(model, ids, batch_size=config.batch_size, keys=keys):
        columns["chosen_tokens"][index] = [len(each) for each in states.chosen_ids]
        columns["rejected_tokens"][index] = [len(each) for each in states.rejected_ids]
        columns["chosen_logprob"][index], columns["rejected_logprob"][index] = chosen, rejected
        for name, kind in config.similarities.items():
            columns[name][index] = _found(name, kind, states, [keys[place] for place in index])
    return {name: column.tolist() for name, column in columns.items()}


def _found(name: str, kind: similarity.Similarity, states: similarity.States, keys: list[Any]) -> Any:
    """What a similarity, which may be somebody's own, says of some pairs: a finite number of each."""
    import numpy as np

    where = f"diagnosing.similarities.{name}"
    try:
        found = np.asarray(kind.of(states), dtype=np.float64)
    except StudyError:
        raise
    except Exception as error:  # whatever a class of somebody's own raises
        raise StudyError(f"{where}: {kind.dump()['kind']}: of fails: {in_one_line(error)}; mend it") from error
    if found.shape != (len(keys),):
        raise StudyError(f"{where}: of {len(keys)} pairs it gives {found.shape}; give a number of each")
    if not np.isfinite(found).all():
        place = int(np.flatnonzero(~np.isfinite(found))[0])
        raise StudyError(f"{where}: of pair {keys[place]} it gives {found[place]}; give a finite number of each")
    return found


def _numbers(table: Any, similarities: list[str]) -> dict[str, Any]:
    """Quantiles of each similarity, and how its order goes with that of the difference in length."""
    numbers: dict[str, Any] = {}
    for name in similarities:
        found = {f"{name}.q{round(100 * at)}": float(table[name].quantile(at)) for at in QUANTILES}
        numbers |= {key: {"value": value, "low": None, "high": None} for key, value in found.items()}
        if name != LENGTH:
            pairs = table[[name, LENGTH]].to_numpy()
            numbers[f"{name}.{LENGTH}"] = over_pairs(pairs, spearman).json()
    return numbers
