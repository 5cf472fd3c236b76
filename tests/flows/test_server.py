"""Prefect's server of a store: one for all who use it, gone when nobody does."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flows.server import Place

USER = """
import sys
from pathlib import Path
from flows.server import using
with using(Path(sys.argv[1])) as api:
    print(api, flush=True)
    sys.stdin.readline()
"""


class User:
    """A process that uses the server until it is told to stop."""

    def __init__(self, place):
        command = [sys.executable, "-c", USER, str(place.home)]
        self.process = subprocess.Popen(
            command, env=place.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def api(self) -> str:
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        self.process.communicate("\n", timeout=60)


@pytest.fixture(scope="module")
def told(places, until):
    """What two processes saw that used a store at once, ended one after the other, and what was left."""
    place = places()
    place.home.mkdir()
    first = User(place)
    apis = [first.api()]
    second = User(place)
    apis.append(second.api())
    servers = [line for line in place.processes() if "-m flows.server" in line]
    evil = asked(apis[0], "/api/health", host="evil.example")
    pages = {path: asked(apis[0], path) for path in ("/api/health", "/", "/report/0123456789ab", "/report/..")}
    first.stop()
    between = asked(apis[0], "/api/health")
    second.process.send_signal(signal.SIGKILL)
    second.process.wait()
    until(lambda: not [line for line in place.processes() if "-m flows.server" in line], "the end of the server", 30)
    return {"apis": apis, "servers": servers, "evil": evil, "pages": pages, "between": between, "place": place}


def asked(api: str, path: str, host: str = "") -> int:
    """The status of an answer."""
    connection = http.client.HTTPConnection(urlsplit(api).netloc, timeout=30)
    connection.request("GET", path, headers={"Host": host} if host else {})
    return connection.getresponse().status


def test_two_who_use_a_store_talk_to_one_server_on_loopback(told):
    assert told["apis"][0] == told["apis"][1]
    assert urlsplit(told["apis"][0]).hostname == "127.0.0.1"
    assert len(told["servers"]) == 1


def test_it_lives_on_while_somebody_uses_it_and_ends_even_when_the_last_was_killed(told):
    assert told["between"] == 200
    assert Place(told["place"].home).told() is None


def test_it_serves_pages_and_answers_nobody_who_calls_it_by_another_name(told):
    assert told["pages"]["/api/health"] == told["pages"]["/"] == 200
    assert told["evil"] == 400


def test_a_report_that_is_not_there_is_not_found_and_no_other_file_is_given(told):
    assert told["pages"]["/report/0123456789ab"] == told["pages"]["/report/.."] == 404


def test_a_new_server_is_not_taken_for_whoever_has_the_port_of_one_that_died(places):
    place = places()
    stranger = http.server.HTTPServer(("127.0.0.1", 0), Anybody)
    threading.Thread(target=stranger.serve_forever, daemon=True).start()
    there = Place(place.home)
    there.said.write_text(json.dumps({"pid": 1, "port": stranger.server_port, "since": ""}))
    user = User(place)
    assert urlsplit(user.api()).port != stranger.server_port
    user.stop()
    stranger.shutdown()
    assert place.processes() == []


class Anybody(http.server.BaseHTTPRequestHandler):
    """A server that has an answer to everything."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_server_that_is_named_and_does_not_answer_is_said(places):
    place = places()
    environment = place.environment() | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    command = [sys.executable, "-m", "flows.cli", "schedule", "--list"]
    run = subprocess.run(command, cwd=place.folder, env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert "PREFECT_API_URL: no server answers at http://127.0.0.1:9/api" in run.stderr


def test_what_a_server_that_died_has_left_is_not_taken_for_one(tmp_path: Path):
    place = Place(tmp_path)
    place.said.write_text(json.dumps({"pid": os.getpid(), "port": 9, "since": ""}))
    place.alive.touch()
    assert place.told() is None
    assert place.url() is None
