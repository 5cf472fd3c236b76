"""Whether a reward model's scores can be trusted, before anything is ranked by them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmpipe import audit as audits
from rmpipe.artifact import Audit, Preferences, RewardModel, Weights
from rmpipe.audit import Auditing
from rmpipe.exam import Finding
from rmpipe.preference import records
from rmpipe.reward import Kind
from tasks.derive import scorer_of
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1, retry=(ConnectionError, TimeoutError))
def audit(
    config: Auditing, reward_model: RewardModel, preferences: Preferences, policy: Weights | None = None,
    *, out: Path, log: Log,
) -> Audit:  # fmt: skip
    """What moves a reward model's scores of a few held-out pairs, and what they are no better than, a row a check.

    Args:
        policy: by whose tokenizer and template the texts are also read, to tell what that would change.
    """
    import pandas as pd

    kind = Kind.parse(reward_model.json("reward_model.json"), where=reward_model.address)
    pairs = records(preferences.split("test")[: config.pairs])
    told = {"constructed": kind.constructed, "tokenizer": _tokenizer(policy)}
    findings = audits.audit(config, lambda: scorer_of(reward_model), pairs, **told)
    pd.DataFrame(map(asdict, findings)).to_parquet(out / "audit.parquet", index=False)
    (out / "audit.json").write_text(json.dumps(_summary(findings, len(pairs)), indent=1))
    amounts = {finding.check: finding.amount for finding in findings}
    counts = {f"{told}s": float(sum(each.verdict == told for each in findings)) for told in ("fail", "drift")}
    return Audit.at(out, audits.sentence(findings), **amounts, **counts)


def _tokenizer(policy: Weights | None) -> Any:
    if policy is None:
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(policy.model)


def _summary(findings: list[Finding], pairs: int) -> dict[str, Any]:
    """The verdict, what failed, and why nothing should be ranked by it; a verdict and an amount by check."""
    return {
        "verdict": audits.verdict(findings),
        "sentence": audits.sentence(findings),
        "failed": [finding.check for finding in findings if finding.verdict == "fail"],
        "objection": audits.objection(findings),
        "pairs": pairs,
        "checks": {
            each.check: {"verdict": each.verdict, "amount": each.amount, "unit": each.unit} for each in findings
        },
    }
