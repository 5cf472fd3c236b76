"""Can the scores of a study's reward models be trusted? Whatever it asks, each of them is examined on its pairs."""

from __future__ import annotations

from collections.abc import Iterator

from flows.branch import Branch
from flows.vanish import Cure
from rmpipe.artifact import Audit
from rmpipe.config import StudyError
from rmpipe.reward import Trained
from rmpipe.study import Study
from rmpipe.vanishing import Vanishing


def audits(study: Study) -> list[Audit]:
    """Every reward model of every seed, those that are trained from each policy once a policy.

    Raises:
        StudyError: the study has no preference pairs that they could be asked about.
    """
    if isinstance(study, Vanishing) and study.preferences is None:
        told = "missing, and reward models are examined on pairs"
        raise StudyError(f"preferences: {told}; name a data set of pairs, [preferences], as docs/vanish.md shows")
    branches = [(Cure if isinstance(study, Vanishing) else Branch)(study, seed) for seed in study.seeds]  # type: ignore[arg-type]
    return [branch.audit(name, base) for branch in branches for name, base in _examined(study)]


def _examined(study: Study) -> Iterator[tuple[str, str | None]]:
    """Each reward model, with the policy that it starts from where the study leaves that open."""
    for name in study.reward_models:
        for base in study.policies if _open(study, name) else (None,):
            yield name, base


def _open(study: Study, name: str) -> bool:
    """Whether a reward model is trained from each policy in turn, or made of one that is."""
    kind = study.reward_models[name]
    if isinstance(kind, Trained):
        return kind.base is None
    return any(_open(study, part) for part in kind.components)
