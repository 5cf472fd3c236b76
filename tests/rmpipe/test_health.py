"""What the doctor finds, on small stores made by hand."""

from __future__ import annotations

import fcntl
import http.server
import json
import shlex
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from packaging.requirements import Requirement

from rmpipe import health, probe, schema
from rmpipe.health import Finding
from rmpipe.store import Store


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store."""
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "it's home"
    folder.mkdir()
    return folder


@pytest.fixture
def port() -> Iterator[int]:
    """That of a server that answers every question with 200."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - http.server's word

        def log_message(self, *_: Any) -> None:
            """Silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def one(findings: Iterator[Finding], check: str) -> Finding:
    (found,) = (each for each in findings if each.check == check)
    return found


def database(file: Path, form: str) -> None:
    file.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (form,))


# -- the machine ------------------------------------------------------------------------------------------------------


def test_this_environment_has_what_rmpipe_declares(home: Path):
    found = one(health.packages(home), "packages")
    assert found.level == "ok"
    assert "torch 2." in found.found


def test_a_package_out_of_range_and_one_that_is_missing_are_faults_with_what_to_type(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    needs = [Requirement("numpy<1"), Requirement("no-such-package>=2"), Requirement("pydantic>=2")]
    monkeypatch.setattr(health, "_needs", lambda: needs)
    numpy, missing = (each for each in health.packages(home) if each.check == "packages")
    assert numpy.level == missing.level == "fault"
    assert shlex.split(numpy.command)[1:] == ["-m", "pip", "install", "numpy<1"]
    assert "no-such-package is missing" in missing.found


def test_the_ranges_leave_extras_out(home: Path):
    names = {need.name for need in health._needs()}
    assert {"fastapi", "torch"} <= names
    assert "pytest" not in names


# -- the store --------------------------------------------------------------------------------------------------------


def test_a_store_that_is_not_there_is_no_fault_and_is_not_made(home: Path):
    there = home / "later"
    found = [each for check in health.CHECKS for each in check(there) if check is not health.packages]
    assert {each.level for each in found} == {"ok"}
    assert not there.exists()


def test_looking_leaves_nothing_behind(home: Path):
    database(home / "mlflow.db", "x")
    database(home / "prefect" / "prefect.db", "x")
    (home / "store").mkdir()
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    for check in health.CHECKS:
        list(check(home))
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("content", "said"), [('{"format": 99}', "of format 99"), ("{}", "tells no format")])
def test_a_store_of_another_form_is_a_fault(home: Path, content: str, said: str):
    (home / "store.json").write_text(content)
    found = one(health.store(home), "store")
    assert found.level == "fault"
    assert said in found.found
    assert found.remedy


def test_a_store_that_is_a_file_is_a_fault(home: Path):
    (home / "file").write_text("")
    assert one(health.store(home / "file"), "store").level == "fault"


def test_too_full_a_disk_is_a_fault(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "LEAST", 1 << 62)
    assert one(health.disk(home), "disk").level == "fault"


def test_locks_are_tried_in_two_processes(home: Path, monkeypatch: pytest.MonkeyPatch):
    assert one(health.disk(home), "locks").level == "ok"
    monkeypatch.setattr(health.fcntl, "flock", lambda *_: None)  # as where locks mean nothing
    assert one(health.disk(home), "locks").level == "fault"


def test_a_network_file_system_is_a_note(home: Path, monkeypatch: pytest.MonkeyPatch):
    disk = psutil.disk_partitions(all=True)[0]._replace(mountpoint=str(home), fstype="nfs4")
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [disk._replace(mountpoint="/", fstype="ext4"), disk])
    found = one(health.disk(home), "locks")
    assert (found.level, "nfs4" in found.found) == ("note", True)


# -- the databases ----------------------------------------------------------------------------------------------------


def test_the_forms_read_from_files_are_those_that_mlflow_knows():
    from mlflow.store.db.utils import _get_latest_schema_revision

    assert [form for form, followed in schema.forms("mlflow").items() if not followed] == [
        _get_latest_schema_revision()
    ]


@pytest.mark.parametrize("package", ["mlflow", "prefect"])
def test_a_database_is_as_old_as_its_package_older_or_newer(home: Path, package: str):
    levels = {"mlflow": "fault", "prefect": "ok"}  # Prefect brings its own up to date when it starts
    forms = schema.forms(package)
    last = next(form for form, followed in forms.items() if not followed)
    early = next(form for form, followed in forms.items() if followed)
    for form, level in ((last, "ok"), (early, levels[package]), ("of tomorrow", "fault")):
        file = home / health.DATABASES[package]
        file.unlink(missing_ok=True)
        database(file, form)
        found = one(health.databases(home), f"{package} data")
        assert found.level == level, found
    assert "later" in found.found


def test_what_is_said_of_a_broken_database_mends_it(home: Path):
    (home / "mlflow.db").write_bytes(b"no database of anything" * 100)
    found = one(health.databases(home), "mlflow data")
    assert found.level == "fault"
    subprocess.run(found.command, shell=True, check=True)
    assert one(health.databases(home), "mlflow data").level == "ok"
    assert (home / "mlflow.db.broken").exists()


def test_a_torn_page_is_found(home: Path):
    file = home / "mlflow.db"
    database(file, next(iter(schema.forms("mlflow"))))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE many (text)")
        connection.executemany("INSERT INTO many VALUES (?)", [("x" * 500,)] * 100)
    content = bytearray(file.read_bytes())
    content[-8192:] = b"\xff" * 8192
    file.write_bytes(content)
    found = one(health.databases(home), "mlflow data")
    assert (found.level, "broken" in found.found) == ("fault", True)


# -- who is at work ---------------------------------------------------------------------------------------------------


def test_who_works_is_told_from_what_was_left(home: Path):
    store = Store(home)
    half = home / "store" / "train" / ".0123456789ab.77.part"
    half.mkdir(parents=True)
    with store.lock("train/0123456789ab"):
        busy = list(health.work(home))
    assert f"process {psutil.Process().pid} holds train-0123456789ab since" in one(iter(busy), "at work").found
    assert one(iter(busy), "left behind").level == "ok"
    store.lock_file("train/0123456789ab").write_text("{}")
    (home / "journal" / "executions").mkdir(parents=True)
    (home / "journal" / "executions" / "train-0123456789ab.json").write_text("{}")
    found = one(health.work(home), "left behind")
    assert found.level == "note"
    assert "locks: 1, half-written artifacts: 1, open journal entries: 1" in found.found


def test_prefects_server_of_the_store_lives_is_stuck_or_was_killed(
    home: Path, port: int, monkeypatch: pytest.MonkeyPatch
):
    assert one(health.server(home), "prefect server").level == "ok"
    folder = home / "prefect"
    folder.mkdir()
    (folder / "server.json").write_text(json.dumps({"pid": 77, "port": port, "since": "2026-01-01 03:00:00"}))
    assert "was killed" in one(health.server(home), "prefect server").found
    with (folder / "server.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "port" in one(health.server(home), "prefect server").found
        assert one(health.server(home), "prefect server").level == "ok"
        monkeypatch.setattr(health, "healthy", lambda *_: False)
        found = one(health.server(home), "prefect server")
    assert (found.level, found.command) == ("note", "kill 77")


# -- services ---------------------------------------------------------------------------------------------------------


def test_a_server_that_is_named_must_answer(home: Path, port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}/")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert one(health.services(home), "mlflow").level == "ok"
    found = one(health.services(home), "prefect")
    assert (found.level, found.command) == ("fault", "unset PREFECT_API_URL")


def test_a_password_is_not_said(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://me:se:cret@host/mlflow")
    found = one(health.services(home), "mlflow")
    assert "cret" not in found.found
    assert "me:***@host/mlflow" in found.found


# -- what costs seconds -----------------------------------------------------------------------------------------------


def test_what_is_asked_answers_fails_or_is_ended():
    with probe.asked("print('yes')") as good, probe.asked("raise ValueError('no')") as bad:
        assert good.answer(30) == ("yes", "")
        assert bad.answer(30) == ("", "ValueError: no")
    began = time.monotonic()
    with probe.asked("import time; time.sleep(60)") as slow:
        assert slow.answer(0.1)[1].startswith("no answer")
    assert slow.process.returncode is not None
    assert time.monotonic() - began < 30


def test_a_prefect_that_cannot_start_names_the_pair_to_install():
    with probe.asked("raise TypeError('Body() got an unexpected keyword argument')") as asked:
        found = one(health._prefect_starts(asked), "prefect start")
    assert found.level == "fault"
    assert "Body()" in found.found
    assert any(word.startswith("fastapi") for word in shlex.split(found.command))


def test_a_torch_that_cannot_use_a_gpu_is_a_note_and_one_that_is_broken_a_fault():
    told = {"torch": "2.13.0", "cuda": "13.0", "found": [], "said": ["The NVIDIA driver on your system is too old\nso"]}
    with probe.asked(f"print({json.dumps(told)!r})") as old, probe.asked("import no_such_torch") as none:
        found, fault = next(health._devices(old)), next(health._devices(none))
    assert (found.level, fault.level) == ("note", "fault")
    assert "too old" in found.found
    assert sys.executable in fault.command


def test_no_hub_is_no_fault(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with probe.asked(probe.HUB) as asked:
        found = next(health._hub(asked))
    assert (found.level, "embedded world" in found.remedy) == ("note", True)


def test_a_hub_that_answers_is_said(port: int, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    with probe.asked(probe.HUB) as asked:
        assert next(health._hub(asked)).level == "ok"


def test_a_check_that_breaks_holds_up_no_other(home: Path, monkeypatch: pytest.MonkeyPatch):
    def torn(home: Path) -> Iterator[Finding]:
        raise RuntimeError("two\nlines")

    for name in ("DEVICES", "PREFECT", "HUB"):
        monkeypatch.setattr(health, name, "raise ValueError('not now')")
    monkeypatch.setattr(health, "CHECKS", (torn, health.work))
    found = {each.check: each for each in health.examine(home)}
    assert found["torn"].found == "could not be looked at: RuntimeError: two"
    assert found["at work"].level == "ok"
    assert set(found) == {"torn", "at work", "left behind", "devices", "prefect start", "hub"}
