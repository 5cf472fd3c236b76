"""Reward models behind a URL, against a server on this machine that answers as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rmpipe.config import StudyError, digest, identity
from rmpipe.reward import Kind
from rmpipe.source import UnreachableError

PROMPTS = ["p", [{"role": "user", "content": "q"}], "p", "r", "s"]
RESPONSES = ["one", "three", "one", "fourteen", ""]
LENGTHS = [3, 5, 3, 8, 0]


@dataclass
class Server:
    """Rewards a response by its length, unless `answers` says what comes first."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    pause: float = 0
    asked: list[Any] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    url: str = ""

    def answer(self, posted: Any) -> tuple[int, Any]:
        self.asked.append(posted)
        time.sleep(self.pause)
        texts = posted["responses"] if "responses" in posted else posted["query"]
        return self.answers.pop(0) if self.answers else (200, {"rewards": [len(text) for text in texts]})


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr("rmpipe.served.WAIT", 0.01)
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.headers.append(self.headers)
            code, body = told.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            text = body if isinstance(body, str) else json.dumps(body)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:  # whoever asked has gone
            pass

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        told.url = f"http://127.0.0.1:{listening.server_port}/get_reward"
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        yield told
        listening.shutdown()


def parse(url: str, **table: Any) -> Any:
    return Kind.parse({"kind": "http", "url": url, "version": "v1", **table}, "reward_models.there")


def rewards(server: Server, **table: Any) -> list[float]:
    return parse(server.url, **table).scorer(None)(PROMPTS, RESPONSES).tolist()


# -- forms ------------------------------------------------------------------------------------------------------------


def test_texts_are_asked_about_once_in_batches_and_in_order(server):
    assert rewards(server, batch_size=3) == LENGTHS
    assert server.asked == [
        {"prompts": ["p", [{"role": "user", "content": "q"}], "r"], "responses": ["one", "three", "fourteen"]},
        {"prompts": ["s"], "responses": [""]},
    ]
    assert parse(server.url).scorer(None)([], []).shape == (0,)


def test_a_server_of_openrlhf_is_asked_in_its_form(server):
    told = {"form": "openrlhf", "template": "<u>{prompt}<a>{response}"}
    assert rewards(server, **told) == [len("<u>p<a>one"), len("<u>user: q<a>three"), 10, 15, 7]
    assert server.asked[0]["query"][:2] == ["<u>p<a>one", "<u>user: q<a>three"]
    assert server.asked[0]["prompts"] == ["p", "user: q", "r", "s"]
    assert server.asked[0].keys() == {"query", "prompts", "labels"}


def test_a_token_goes_to_the_server_and_nowhere_else(server, monkeypatch):
    kind = parse(server.url, token_variable="SECRET_OF_MINE")
    with pytest.raises(StudyError, match=r"^token_variable: the environment has no SECRET_OF_MINE; set it"):
        kind.check()
    monkeypatch.setenv("SECRET_OF_MINE", "hush")
    kind.check()
    assert kind.scorer(None)(["p"], ["ab"]).tolist() == [2]
    assert server.headers[0]["Authorization"] == "Bearer hush"
    assert "hush" not in f"{kind.dump()} {identity(kind)} {kind.describe()} {kind.content()} {server.asked}"


# -- faults -----------------------------------------------------------------------------------------------------------


def test_a_server_that_cannot_just_now_is_asked_again_after_growing_waits(server, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("rmpipe.served.time.sleep", waits.append)
    server.answers = [(503, "busy"), (429, "slow down"), (500, "")]
    assert rewards(server) == LENGTHS
    assert len(server.asked) == 4
    assert [wait for wait in waits if wait] == pytest.approx([0.01, 0.02, 0.04])


def test_a_server_that_never_can_is_unreachable_so_that_the_stage_tries_again(server):
    server.answers = [(503, "busy\nbody")] * 3
    with pytest.raises(UnreachableError, match=r"no rewards \(503 Service Unavailable: busy\), asked 3 times"):
        rewards(server, retries=2)
    assert len(server.asked) == 3
    assert issubclass(UnreachableError, ConnectionError)


def test_silence_and_a_place_where_nobody_listens_are_unreachable(server):
    server.pause = 0.3
    with pytest.raises(UnreachableError, match="ReadTimeout"):
        rewards(server, timeout=0.05, retries=1)
    assert len(server.asked) == 2
    with pytest.raises(UnreachableError, match="ConnectError"):
        parse("http://127.0.0.1:9/get_reward", retries=0).scorer(None)(["p"], ["r"])


@pytest.mark.parametrize(("code", "told"), [(400, "400 Bad Request"), (401, "401"), (404, "404"), (302, "302")])
def test_what_the_server_refuses_is_told_in_its_words_and_not_asked_again(server, code, told):
    server.answers = [(code, "no model here\nand more")]
    with pytest.raises(StudyError, match=rf"^url: {server.url} refuses: {told}.*no model here; see"):
        rewards(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"rewards": [1, 2]}, "2 rewards for 3 texts, the first of them row 0"),
        ({"rewards": {"p": 1}}, "no list of rewards for 3 texts"),
        ({"rewards": [1, None, 2]}, "gives row 1 the reward None"),
        ('{"rewards": [1, 2, NaN]}', "gives row 3 the reward nan"),
        ({"rewards": [1, "2", 3]}, "gives row 1 the reward '2'"),
        ({"rewards": [True, 2, 3]}, "gives row 0 the reward True"),
        ({"scores": [1, 2, 3]}, 'answers \'{"scores": '),
        ("<html>", "answers '<html>'"),
        ([1, 2, 3], "answers '\\[1, 2, 3\\]'"),
    ],
)
def test_what_is_not_one_finite_number_a_text_is_refused_and_the_row_named(server, answer, told):
    server.answers = [(200, answer)]
    with pytest.raises(StudyError, match=rf"^url: {server.url} .*{told}"):
        rewards(server, batch_size=3)


# -- the study --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"url": "localhost:5000"}, r"url: 'localhost:5000' is no URL of a server; give one such as http://127.0.0.1"),
        ({"url": "ftp://host/x"}, "url: 'ftp://host/x' is no URL of a server"),
        ({"url": "http://me:word@host/x"}, "url: a URL is written down, and this one holds a password"),
        ({"url": "http://host/x?"}, "url: a URL is written down, and what follows . or # .* its configuration"),
        ({"url": "http://host/x", "token_variable": "T"}, "token_variable: the token could be read on its way"),
        ({"url": "http://host/x", "version": ""}, "version: "),
        ({"url": "http://host/x", "template": "{prompt}"}, r"template: \{response\} missing"),
    ],
)
def test_what_will_not_do_is_refused_when_the_study_is_read(table, told):
    with pytest.raises(StudyError, match=rf"^reward_models.there.{told}"):
        parse(**table)


@pytest.mark.parametrize(
    "url",
    ["http://host/x?api_key=hush", "host/x?api_key=hush", "https://host/x#hush", "http://[/?hush", "ftp://me:hush@h/"],
)
def test_what_may_be_a_secret_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(StudyError, match=r"url: a URL is written down.*token_variable") as caught:
        parse(url)
    assert "hush" not in str(caught.value)


def test_a_token_may_go_where_nobody_reads_it():
    for url in ("https://host/x", "http://127.0.0.1:5000/x", "http://localhost:5000/x", "http://[::1]:5000/x"):
        assert parse(url, token_variable="T").token_variable == "T"


def test_what_is_served_and_where_counts_and_not_how_fast():
    one = parse("https://here/x")
    same = parse("https://here/x", batch_size=2, timeout=1, retries=0, token_variable="T")
    assert digest(identity(one)) == digest(identity(same))
    assert one.content() == ""
    for other in ({"version": "v2"}, {"url": "https://here/y"}):  # a study asks the server that it names, and no other
        assert digest(identity(one)) != digest(identity(one.model_copy(update=other)))
    assert Kind.parse(one.dump(), "") == one
    assert one.describe() == "http: v1, served at https://here/x"
