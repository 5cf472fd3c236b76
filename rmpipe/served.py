"""A reward model behind a URL: whatever gives a reward for a prompt and a response, in whatever program."""

from __future__ import annotations

import ipaddress
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from rmpipe.config import Runtime, StudyError, first_line
from rmpipe.reward import Kind, Scorer
from rmpipe.source import UnreachableError
from rmpipe.text import Template, Text, filled, readable

if TYPE_CHECKING:
    import httpx
    import numpy as np

WAIT = 1.0
"""Seconds before a request is first made again; twice as long each time after."""
EXAMPLE = "http://127.0.0.1:5000/get_reward"
LATER = (408, 425, 429)
"""Answers that another try may change, besides those of 500 and more."""


class Served(Kind):
    """A reward model that a server of somebody's holds, which is asked over HTTP."""

    kind: Literal["http"] = "http"
    url: str
    """Where it is, without a query, since a URL is written down: into records, messages and the lineage."""
    version: str = Field(min_length=1)
    """What is served there, in your words: beside the URL all that the address hashes of it, for what a server holds
    cannot be seen. Change it when the model changes."""
    form: Literal["rmpipe", "openrlhf"] = "rmpipe"
    """What is posted. `rmpipe`: {"prompts", "responses"}, prompts as the data set has them, texts or messages.
    `openrlhf`: {"query", "prompts", "labels"}, as its `remote_rm_url` is asked. The answer is {"rewards"} in both."""
    template: Template = "{prompt}{response}"
    """Of the form `openrlhf`: what a `query` is, in the chat template that the server's model wants."""
    batch_size: Annotated[int, Runtime] = Field(64, ge=1)
    timeout: Annotated[float, Runtime] = Field(60.0, gt=0)
    """Seconds of silence after which a batch counts as unanswered."""
    retries: Annotated[int, Runtime] = Field(5, ge=0)
    """How often a batch is asked about again where the server does not answer, or says that it cannot now."""
    token_variable: Annotated[str | None, Runtime] = None
    """The environment variable that holds a token for the server; the token itself is written nowhere."""

    @field_validator("url")
    @classmethod
    def _without_secrets(cls, url: str) -> str:
        import httpx

        if "?" in url or "#" in url:
            told = "a URL is written down, and what follows ? or # in this one may be a secret"
            remedy = "name a token_variable for a token, and put what else the server must know into its path or its"
            raise ValueError(f"{told}; {remedy} configuration")
        try:
            place = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{url!r} is no URL ({error}); give one such as {EXAMPLE}") from None
        if place.userinfo:
            raise ValueError("a URL is written down, and this one holds a password; name a token_variable instead")
        if place.scheme not in ("http", "https") or not place.host:
            raise ValueError(f"{url!r} is no URL of a server; give one such as {EXAMPLE}")
        return url

    @field_validator("token_variable")
    @classmethod
    def _unread_on_the_way(cls, name: str | None, info: ValidationInfo) -> str | None:
        url = info.data.get("url", "https")
        if name is not None and not url.startswith("https") and not _here(url):
            raise ValueError("the token could be read on its way; give an https url, or leave it out")
        return name

    def describe(self) -> str:
        """One line for a person."""
        return f"http: {self.version}, served at {self.url}"

    def check(self) -> None:
        """Refuse a token that is not there."""
        self.headers()

    def headers(self) -> dict[str, str]:
        """With what it is asked besides the texts.

        Raises:
            StudyError: the environment has no such token.
        """
        if self.token_variable is None:
            return {}
        if not (token := os.environ.get(self.token_variable)):
            raise StudyError(f"token_variable: the environment has no {self.token_variable}; set it, or leave it out")
        return {"Authorization": f"Bearer {token}"}

    def posted(self, prompts: Sequence[Text], responses: Sequence[str]) -> dict[str, Any]:
        """What is sent of a batch."""
        if self.form == "rmpipe":
            return {"prompts": list(prompts), "responses": list(responses)}
        queries = [filled(self.template, *row) for row in zip(prompts, responses, strict=True)]
        return {"query": queries, "prompts": [readable(prompt) for prompt in prompts], "labels": [""] * len(queries)}

    def scorer(
        self, folder: Path | None, components: Sequence[Scorer] = (), *, base: Path | None = None,
        batch_tokens: int = 8192,
    ) -> Scorer:  # fmt: skip
        """Asks the server, in batches; equal texts are asked about once."""
        headers = self.headers()

        def score(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            import httpx
            import numpy as np

            rows = [(_plain(prompt), response) for prompt, response in zip(prompts, responses, strict=True)]
            keys = [json.dumps(row) for row in rows]
            places = {key: row for row, key in reversed(list(enumerate(keys)))}  # where each is first
            asked = sorted(places.values())
            rewards: dict[str, float] = {}
            # What is on this machine is not asked for through a proxy.
            with httpx.Client(timeout=self.timeout, headers=headers, trust_env=not _here(self.url)) as client:
                for start in range(0, len(asked), self.batch_size):
                    part = asked[start : start + self.batch_size]
                    answer = _post(client, self, self.posted(*zip(*(rows[row] for row in part), strict=True)))
                    rewards |= zip((keys[row] for row in part), _rewards(answer, part, self.url), strict=True)
            return np.array([rewards[key] for key in keys], dtype=np.float32)

        return score


def _plain(prompt: Text) -> Text:
    return prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt]


def _here(url: str) -> bool:
    """Whether a URL is one of this machine."""
    import httpx

    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# -- asking -----------------------------------------------------------------------------------------------------------


def _post(client: httpx.Client, kind: Served, batch: dict[str, Any]) -> httpx.Response:
    """The server's answer to a batch.

    Raises:
        UnreachableError: it did not answer, or could not, as often as it was asked.
        StudyError: it refuses.
    """
    for attempt in range(kind.retries + 1):
        if attempt:
            time.sleep(WAIT * 2 ** (attempt - 1))
        answer, fault = _once(client, kind.url, batch)
        if answer is not None and answer.is_success:
            return answer
        if answer is not None and answer.status_code < 500 and answer.status_code not in LATER:
            raise StudyError(f"url: {kind.url} refuses: {fault}; see what form it wants, and whether it is the place")
    told = f"asked {kind.retries + 1} times; see whether it runs, or raise timeout or retries"
    raise UnreachableError(f"{kind.url}: no rewards ({fault}), {told}")


def _once(client: httpx.Client, url: str, batch: dict[str, Any]) -> tuple[httpx.Response | None, str]:
    """An answer, None where none came, and what went wrong."""
    import httpx

    try:
        answer = client.post(url, json=batch)
    except httpx.TransportError as error:
        return None, f"{type(error).__name__}: {first_line(error)}"
    line = next(iter(answer.text.strip().splitlines()), "")[:200]
    return answer, f"{answer.status_code} {answer.reason_phrase}{f': {line}' if line else ''}"


def _rewards(answer: httpx.Response, rows: list[int], url: str) -> list[float]:
    """The rewards in an answer.

    Args:
        rows: of the texts that were asked about.

    Raises:
        StudyError: there are others than one finite number a text; names the row.
    """
    try:
        rewards = answer.json()["rewards"]
    except (ValueError, KeyError, TypeError):
        told = f'answers {answer.text[:80]!r}, and {{"rewards": [...]}} is expected'
        raise StudyError(f"url: {url} {told}; see what form it has") from None
    if not isinstance(rewards, list) or len(rewards) != len(rows):
        count = len(rewards) if isinstance(rewards, list) else "no list of"
        told = f"{count} rewards for {len(rows)} texts, the first of them row {rows[0]}"
        raise StudyError(f"url: {url} gives {told}; it must give one each, in order")
    for row, reward in zip(rows, rewards, strict=True):
        if isinstance(reward, bool) or not isinstance(reward, int | float) or not math.isfinite(reward):
            raise StudyError(f"url: {url} gives row {row} the reward {reward!r}; it must be one finite number")
    return rewards
