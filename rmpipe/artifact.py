"""Typed handles of what the store holds.

A handle is an address and a place, nothing more: it is known before the artifact is made, travels between processes,
and reads its data only when asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rmpipe.config import StudyError, flatten

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from rmpipe.rehearsal import Rehearsed
    from rmpipe.slopes import Slopes

HUB = "huggingface"
"""The folder below the home for what the hub gives, see `rmpipe.source.keep_hub_below`."""
Inputs = dict[str, Any]  # argument name -> handle, list of handles, dictionary of handles, or None


class Artifact:
    """What a stage made: `<Rollouts sample/5fa8bf694aba 500 prompts x 16>`.

    Args:
        address: `stage/12 hexadecimal digits`, a hash of what the stage was told.
        home: the folder that holds all state (`$RMPIPE_HOME`).
    """

    kinds: ClassVar[dict[str, type[Artifact]]] = {}
    main: ClassVar[str] = ""  # the file that `table()` reads

    def __init_subclass__(cls) -> None:
        Artifact.kinds[cls.__name__] = cls

    def __init__(self, address: str, home: Path | str):
        self.address = address
        self.home = Path(home)

    @classmethod
    def at(cls, folder: Path, summary: str = "", **metrics: float) -> Self:
        """What a stage returns: the folder it wrote, one line about it, and numbers worth comparing."""
        draft = cls("", folder)
        draft.summary, draft.metrics = summary, metrics
        return draft

    summary: str = ""
    metrics: dict[str, float] = {}  # noqa: RUF012 - replaced, never altered

    @property
    def path(self) -> Path:
        """The artifact's folder."""
        return self.home / "store" / self.address if self.address else self.home

    @property
    def built(self) -> bool:
        """Whether the store has it."""
        return (self.path / "record.json").exists()

    @property
    def told(self) -> Path:
        """Where its record is, or would be, when its files are elsewhere: it is an ancestor of what was imported."""
        return self.home / "ancestry" / f"{self.address}.json"

    @property
    def only_told(self) -> bool:
        """Whether its record is here, and its files are not."""
        return not self.built and self.told.exists()

    @cached_property
    def record(self) -> dict[str, Any]:
        """Who made it, from what, when, with which code and packages."""
        file = self.told if self.only_told else self.path / "record.json"
        try:
            return json.loads(file.read_text())
        except FileNotFoundError:
            raise StudyError(f"{self.address}: not in {self.home / 'store'}; run its study first") from None
        except ValueError:
            raise StudyError(f"{file}: altered; the next run of its study makes it again") from None

    @property
    def inputs(self) -> Inputs:
        """The handles it was made from, by argument name."""
        return {name: self._handles(value) for name, value in self.record["inputs"].items()}

    @property
    def run(self) -> str | None:
        """The MLflow run that made the bytes."""
        return self.record.get("run_id")

    @property
    def content(self) -> str:
        """SHA-256 over the names and digests of its files."""
        return self.record["content"]

    def table(self) -> pd.DataFrame:
        """Its main table."""
        import pandas as pd

        if not self.main:
            raise StudyError(f"{self!r} has no table")
        if self.only_told:
            raise StudyError(f"{self.address}: its record only is here, and no table; run its study to have it")
        return pd.read_parquet(self.path / self.main)

    def preview(self) -> pd.DataFrame | None:
        """A few rows worth reading, texts as text, for whoever browses the runs; None when there is nothing to read."""
        return None

    def json(self, name: str) -> Any:
        """One of its JSON files."""
        return json.loads((self.path / name).read_text())

    def _handles(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._handles(item) for item in value]
        if isinstance(value, dict):
            return {name: self._handles(item) for name, item in value.items()}
        return None if value is None else open_artifact(value, self.home)

    def _moved(self, place: str) -> Path:
        """A folder by the path it had once: what the hub gave lies below the home, and goes where that goes."""
        path = Path(place)
        tails = [Path(*path.parts[at:]) for at, part in enumerate(path.parts) if part == HUB]
        here = (self.home / tail for tail in tails)
        return path if path.exists() else next((folder for folder in here if folder.exists()), path)

    def __repr__(self) -> str:
        note = "not built"
        if self.built or self.told.exists():
            note = ", ".join([self.record.get("summary", ""), *["its record only"] * (not self.built)])
        return f"<{type(self).__name__} {self.address}{' ' if note else ''}{note}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Artifact) and (self.address, self.home) == (other.address, other.home)

    def __hash__(self) -> int:
        return hash((self.address, self.home))


class Prompts(Artifact):
    """Prompts in splits, with what is known of each; counts in `summary.json`."""

    def split(self, name: str) -> pd.DataFrame:
        """The rows of one split: policy, test, or of pairs reward."""
        table = self.table()
        return table[table["split"] == name].reset_index(drop=True)

    def prompts(self, name: str) -> tuple[list[str], list[Any]]:
        """The distinct prompts of one split, with the id of the first row that asks each."""
        table = self.split(name)
        seen: dict[str, tuple[str, Any]] = {}
        for key, prompt in zip(table["id"].astype(str), table["prompt"], strict=True):
            prompt = prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt]
            seen.setdefault(json.dumps(prompt, sort_keys=True), (key, prompt))
        return [key for key, _ in seen.values()], [prompt for _, prompt in seen.values()]


class Preferences(Prompts):
    """Preference pairs: id, prompt, chosen, rejected, split, and scores once relabelled."""

    main = "preferences.parquet"

    def preview(self) -> pd.DataFrame | None:
        """The first 50 pairs."""
        return _texts(_head(self.path / self.main, 50, ["id", "split", "prompt", "chosen", "rejected"]))


class Labelled(Prompts):
    """Inputs with their labels: id, prompt, references (one or more), split, and what else their source has."""

    main = "labelled.parquet"

    def preview(self) -> pd.DataFrame | None:
        """The first 50 inputs, each with its first reference."""
        table = _head(self.path / self.main, 50, ["id", "split", "prompt", "references"])
        table["references"] = [texts[0] for texts in table["references"]]
        return _texts(table.rename(columns={"references": "response"}))


class Rollouts(Artifact):
    """K responses a prompt of one policy, one row a prompt."""

    main = "rollouts.parquet"

    def pairs(self) -> tuple[list[Any], list[str]]:
        """Prompts and responses flattened, prompt-major: both of length prompts x K."""
        table = self.table()
        asked = [prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt] for prompt in table["prompt"]]
        prompts = [prompt for prompt, texts in zip(asked, table["responses"], strict=True) for _ in texts]
        return prompts, [text for texts in table["responses"] for text in texts]

    @property
    def unit(self) -> str:
        """What `lengths` counts: tokens, or characters where whoever drew the responses did not count these."""
        import pyarrow.parquet as pq

        return "tokens" if "tokens" in pq.read_schema(self.path / self.main).names else "characters"

    def lengths(self) -> np.ndarray:
        """The length of each response, (prompts, K), in `unit`."""
        import numpy as np

        table = self.table()
        if "tokens" in table:
            return np.stack(table["tokens"].to_list())
        return np.array([[len(text) for text in texts] for texts in table["responses"]])

    def preview(self) -> pd.DataFrame | None:
        """The first 4 responses to each of the first 50 prompts, one a row, with their lengths in tokens if counted."""
        several = ["responses", "tokens"][: 2 if self.unit == "tokens" else 1]
        table = _head(self.path / self.main, 50, ["prompt", *several])
        for name in several:
            table[name] = [list(values[:4]) for values in table[name]]
        table = table.explode(several, ignore_index=True)
        return _texts(table.rename(columns={"responses": "response"}))


class Scores(Artifact):
    """One reward model's rewards over rollouts (`rollouts.npy`, (prompts, K)) and over pairs (`pairs.npy`, (n, 2))."""

    def rewards(self) -> np.ndarray:
        """Rewards of the rollouts, (prompts, samples), reward units."""
        import numpy as np

        return np.load(self.path / "rollouts.npy", allow_pickle=False)

    def pairs(self) -> np.ndarray | None:
        """Rewards of (chosen, rejected) of the test pairs, (n, 2), reward units; None when no pairs were scored."""
        import numpy as np

        file = self.path / "pairs.npy"
        return np.load(file, allow_pickle=False) if file.exists() else None

    def looks(self) -> np.ndarray:
        """The same at the steps at which the reward model's weights were kept, (looks, n, 2)."""
        import numpy as np

        return np.load(self.path / "looks.npy", allow_pickle=False)


class Kept(Artifact):
    """A model whose weights may have been kept while it was trained."""

    def looks(self) -> list[str]:
        """The steps at which its weights were kept while it was trained, in their order; the end is not among them."""
        return sorted(folder.name for folder in self.path.glob("looks/*"))

    def look(self, step: str) -> Path:
        """The folder of one of `looks()`."""
        return self.path / "looks" / step


class Weights(Artifact):
    """A causal language model in the form of `save_pretrained`, or a reference to a folder or hub id."""

    @property
    def model(self) -> Path:
        """The folder that `from_pretrained` loads."""
        reference = self.path / "reference.json"
        return self._moved(self.json("reference.json")["path"]) if reference.exists() else self.path / "model"

    @property
    def dtype(self) -> str:
        """What its model computes in: what it was saved in, or of a reference what the study says; else float32."""
        from rmpipe.policy import dtype_of

        if (self.path / "reference.json").exists():
            return str(self.json("reference.json").get("dtype", "float32"))
        return dtype_of(self.path / "model")


class Policy(Weights):
    """A policy that RLHF trained, with its curve over training and texts it wrote."""

    main = "curve.parquet"

    def samples(self) -> pd.DataFrame:
        """Held-out prompts with a response before and after, and the gain of each prompt."""
        import pandas as pd

        return pd.read_parquet(self.path / "prompts.parquet")

    def preview(self) -> pd.DataFrame | None:
        """What it wrote while it was trained: at most 200 rows, as many of each step, in the order of the steps."""
        import numpy as np
        import pandas as pd

        file = self.path / "texts.parquet"
        if not file.exists():
            return None
        table = pd.read_parquet(file)
        steps = np.unique(table["step"])
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, 200).astype(int))] if len(steps) > 200 else steps
        kept = table[table["step"].isin(steps)].sort_values("step", kind="stable")
        return _texts(kept.groupby("step").head(200 // max(1, len(steps))).reset_index(drop=True))


class Preferred(Weights, Kept):
    """A policy that was trained on preference pairs without a reward model."""


class RewardModel(Kept):
    """A reward model of any kind: what it is (`reward_model.json`), with its weights in `model/` when it has any."""

    @property
    def components(self) -> list[RewardModel]:
        """The reward models it is made of."""
        return self.inputs.get("components") or []

    @property
    def base(self) -> Path | None:
        """The folder of the language model that it was trained from; None where it was not."""
        base = self.inputs.get("base")
        return None if base is None else base.model

    @property
    def model(self) -> Path:
        """The folder of its weights, which of an implicit one is a language model's."""
        return self.path / "model"


class Measurement(Artifact):
    """Numbers with intervals about one reward model under one policy; `prompts.parquet` has them prompt by prompt."""

    main = "prompts.parquet"

    def numbers(self) -> dict[str, dict[str, float] | None]:
        """Each number as {"value", "low", "high"}, or None where it cannot be known."""
        return self.json("measurement.json")

    def preview(self) -> pd.DataFrame | None:
        """At most 500 prompts, the flattest first, where it is of rewards over rollouts that are here."""
        from rmpipe.curriculum import shown

        given = self.record["inputs"] if self.built else {}
        if not {"rollouts", "scores"} <= given.keys():
            return None
        rollouts, scores = Rollouts(given["rollouts"], self.home), Scores(given["scores"], self.home)
        if not (rollouts.built and scores.built):
            return None
        return _texts(shown(rollouts, scores, self.record["config"]["threshold"], 500))


class Audit(Artifact):
    """What a reward model was examined for: a row a check, worst first; verdict and what failed in `audit.json`."""

    main = "audit.parquet"

    @property
    def failed(self) -> list[str]:
        """The checks that failed."""
        return list(self.json("audit.json")["failed"])

    def objection(self) -> str | None:
        """Why nothing should be ranked by its reward model, with the remedies; None where nothing failed."""
        if (told := self.json("audit.json")["objection"]) is None:
            return None
        name = self.record["labels"].get("reward_model") if self.built else self.address
        remedy = f"reward_models.{name} = false leaves it out, --allow-unsound ranks it all the same"
        return f"{name} fails its audit ({', '.join(self.failed)}): {told}; rmpipe audit tells all; {remedy}"

    def preview(self) -> pd.DataFrame | None:
        """Every check."""
        return self.table()


class Diagnosis(Measurement):
    """How alike the two responses of each pair are: `pairs.parquet`, a row a pair, with its texts."""

    main = "pairs.parquet"

    def preview(self) -> pd.DataFrame | None:
        """At most 500 pairs in the order of CHES: 100 at either end, and others evenly from all between."""
        import json

        import numpy as np

        table = self.table().sort_values("ches", ascending=False, kind="stable")
        if (count := len(table)) > 500:
            between = np.linspace(100, count - 101, 300).round().astype(int)
            table = table.iloc[[*range(100), *between, *range(count - 100, count)]]
        return _texts(table.assign(prompt=[json.loads(text) for text in table["prompt"]]).reset_index(drop=True))


class Gauge(Measurement):
    """What a policy can learn of a reward at each prompt: `prompts.parquet`, a row a prompt, with samples."""

    def preview(self) -> pd.DataFrame | None:
        """At most 500 prompts in the order of their std, the least first: 250 at either end."""
        import json

        table = self.table().sort_values("std", kind="stable")
        if len(table) > 500:
            table = table.iloc[[*range(250), *range(len(table) - 250, len(table))]]
        return _texts(table.assign(prompt=[json.loads(text) for text in table["prompt"]]).reset_index(drop=True))


class Sieve(Artifact):
    """Which prompts teach nothing, and what is to become of them: `sieve.parquet`, a row a prompt."""

    main = "sieve.parquet"

    def preview(self) -> pd.DataFrame | None:
        """At most 500 prompts, those of the least std first."""
        table = self.table().sort_values("white_std", kind="stable")[:500]
        return _texts(table.assign(prompt=[json.loads(text) for text in table["prompt"]]).reset_index(drop=True))


class Gradients(Artifact):
    """Gradients of the rollouts' log-likelihoods by some weights: `slopes.npy`, (prompts, K, weights), float16."""

    def slopes(self) -> Slopes:
        """As `rmpipe.slopes` has them, in float32."""
        import numpy as np

        from rmpipe.slopes import Slopes

        told = self.json("slopes.json")
        values = np.load(self.path / "slopes.npy", allow_pickle=False).astype(np.float32)
        values *= np.float32(told["unit"])
        return Slopes(values, told["share"])


class Rehearsal(Artifact):
    """What became of a policy that was taught by each of some reward models, gone through on its samples."""

    def rehearsed(self) -> Rehearsed:
        """As `rmpipe.rehearsal` has it; the rewards are in the order of `names`."""
        import numpy as np

        from rmpipe.rehearsal import Rehearsed

        with np.load(self.path / "rehearsed.npz", allow_pickle=False) as held:
            truth, taught = (
                {name.removeprefix(what): held[name] for name in held if name.startswith(what)}
                for what in ("truth ", "taught ")
            )
            return Rehearsed(self.json("names.json")["steps"], truth, taught, held["proxy"], held["kl"], held["ess"])

    def names(self) -> list[str]:
        """The reward models, and ground truths that taught as rewards."""
        return list(self.json("names.json")["names"])


class Forecast(Artifact):
    """What is foretold of each reward model under each policy and algorithm: `forecast.json`, and a row each."""

    main = "forecast.parquet"

    def answer(self) -> dict[str, Any]:
        """The forecast as JSON holds it."""
        return self.json("forecast.json")

    def preview(self) -> pd.DataFrame | None:
        """Every row."""
        return self.table()


class Race(Artifact):
    """Which reward model is foretold to teach best, found by as few samples and labels as that takes: a row a round."""

    main = "rounds.parquet"

    def answer(self) -> dict[str, Any]:
        """How it ended as JSON holds it."""
        return self.json("race.json")

    def preview(self) -> pd.DataFrame | None:
        """Every round."""
        return self.table()


class Ranking(Artifact):
    """The answer: rows, correlations, contrasts, sentences."""

    def answer(self) -> dict[str, Any]:
        """The answer as JSON holds it."""
        return self.json("answer.json")


class Report(Artifact):
    """One self-contained page: `report.html`."""

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "report.html"


def _head(file: Path, count: int, columns: list[str]) -> pd.DataFrame:
    """The first rows of a table, whatever its size."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    batch = next(table.iter_batches(count, columns=columns), None)
    return (table.schema_arrow.empty_table() if batch is None else batch).to_pandas()[columns]


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose prompts are text, whichever form they have, and in which no text is longer than a screen."""
    from rmpipe.text import readable

    for name in {"prompt", "chosen", "rejected", "response", "other"} & set(table):
        table[name] = [readable(text)[:2000] for text in table[name]]
    return table


def open_artifact(address: str, home: Path | str) -> Artifact:
    """The handle at an address, of the kind its record names.

    Raises:
        StudyError: nothing is at that address.
    """
    record = Artifact(address, home).record
    return Artifact.kinds[record["kind"]](address, home)


def handles(value: Any) -> Iterator[Artifact]:
    """Every handle inside an input value: a handle, a list, a dictionary, or None."""
    if isinstance(value, Artifact):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from handles(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from handles(item)


def addresses(value: Any) -> Any:
    """An input value with each handle replaced by its address."""
    if isinstance(value, Artifact):
        return value.address
    if isinstance(value, list | tuple):
        return [addresses(item) for item in value]
    if isinstance(value, dict):
        return {name: addresses(item) for name, item in value.items()}
    return value


def parents(inputs: dict[str, Any]) -> list[str]:
    """The addresses in a record's inputs, each once."""
    return list(dict.fromkeys(leaf for leaf in flatten(inputs).values() if isinstance(leaf, str)))
