"""What a killed writer leaves behind is removed by the next one, and nobody else's files are."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import REPOSITORY

from dgnet_jax.runtime import atomic
from dgnet_jax.runtime.atomic import replacing, write_json


@pytest.fixture(autouse=True)
def of_a_new_process() -> None:
    """A folder is looked at once by each process."""
    atomic._remove_abandoned.cache_clear()


def killed_while_writing(path: Path) -> Path:
    """The file that a process leaves which is killed in the middle of `replacing`."""
    program = (
        "import os, signal, sys\n"
        "from dgnet_jax.runtime.atomic import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], cwd=REPOSITORY)
    assert ended.returncode == -signal.SIGKILL
    (left,) = path.parent.glob(f".{path.name}.*.tmp")
    return left


def test_the_file_of_a_killed_writer_goes_with_the_next_write_into_the_folder(tmp_path):
    left = killed_while_writing(tmp_path / "picture.png")
    assert left.read_text() == "half"
    write_json(tmp_path / "another.json", {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["another.json"]


def test_what_a_living_process_writes_stays(tmp_path):
    with replacing(tmp_path / "mine.txt") as mine:
        mine.write_text("mine")
        atomic._remove_abandoned.cache_clear()
        write_json(tmp_path / "another.json", {})
        assert mine.read_text() == "mine"
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_another_machines_and_an_older_releases_files_stay_for_a_day(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    names = [
        f".a.json.{dead.pid}-{(int(atomic._machine(), 16) ^ 1):08x}01234567.tmp",
        f".a.json.{dead.pid}-01234567.tmp",
        f".a.json.{'9' * 30}-01234567.tmp",
    ]
    for name in names:
        (tmp_path / name).write_text("")
    others = [".hidden.tmp", "a.json.5-01234567.tmp", ".a.json.5-0123.tmp", ".a.5-0123456Z.tmp"]
    (tmp_path / f".folder.{dead.pid}-01234567.tmp").mkdir()
    for name in others:
        (tmp_path / name).write_text("a user's")
    write_json(tmp_path / "b.json", {})
    assert all((tmp_path / name).exists() for name in names)

    yesterday = time.time() - 25 * 3600
    for path in tmp_path.iterdir():
        os.utime(path, (yesterday, yesterday))
    atomic._remove_abandoned.cache_clear()
    write_json(tmp_path / "b.json", {})
    kept = {*others, f".folder.{dead.pid}-01234567.tmp", "b.json"}
    assert {entry.name for entry in tmp_path.iterdir()} == kept


def test_a_folder_is_looked_at_once(tmp_path, monkeypatch):
    seen = []
    plain = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: seen.append(folder) or plain(folder))
    for name in ("a", "b"):
        write_json(tmp_path / name, {})
    assert seen == [tmp_path]
