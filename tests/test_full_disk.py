"""A full disk ends a command with one line and status 74, and leaves the files before it whole.

A limit of file sizes stands for the disk: the system then takes a part of a write, and refuses the
next one, as a disk that fills up does.
"""

import contextlib
import errno
import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from drawn_market import draw_market
from PIL import Image
from processes import REPOSITORY, draw_tiny_data, files_of
from test_checkpoints import noise
from test_loop import stage
from tiny import tiny_config
from trained import save_run

from dgnet_jax.data import prepare, synthetic
from dgnet_jax.errors import DISK_FULL_STATUS, DiskFullError, InputError, disk_full, one_line
from dgnet_jax.export import ARTEFACT
from dgnet_jax.export import __main__ as export
from dgnet_jax.figures import save_animation, save_png
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.atomic import write_image, write_json
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.devices import on_first_process
from dgnet_jax.training import board
from dgnet_jax.training.loop import run_stage
from dgnet_jax.training.run_log import RunLog

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can become longer than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def ended(captured: pytest.CaptureFixture[str], path: Path) -> None:
    """The last line, of no traceback, names the path."""
    said = captured.readouterr().err
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith(f"error: {path}: cannot be written (File too large). Make room, or")


def test_what_was_written_before_stays_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, [1])
    with room_for(100), pytest.raises(DiskFullError, match=f"^{path}: cannot be written "):
        write_json(path, list(range(1000)))
    assert files_of(tmp_path) == {"results.json": b"[\n  1\n]\n"}


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp"])
def test_a_picture_is_not_cut_short(tmp_path, name):
    """Pillow alone reports nothing."""
    path = tmp_path / name
    with room_for(700), pytest.raises(OSError) as caught:
        if path.suffix == ".png":
            save_png(PICTURE, path)
        elif path.suffix == ".jpg":
            write_image(Image.fromarray(PICTURE), path, format="JPEG")
        else:
            save_animation(np.stack([PICTURE, PICTURE[::-1]]), path, {})
    assert caught.value.errno == errno.EFBIG
    if path.suffix != ".jpg":
        assert str(caught.value).startswith(f"{path}: cannot be written")
        assert files_of(tmp_path) == {}


def test_a_full_disk_is_found_behind_other_exceptions():
    def raised(first: BaseException, then: BaseException) -> BaseException:
        try:
            try:
                raise first
            except BaseException as error:
                raise then from error
        except BaseException as error:
            return error

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "d/file")
    for error, path in (
        (full, "there"),
        (raised(full, InputError("--output: no")), "there"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "there"),
        (raised(OSError(errno.EFBIG, "File too large"), RuntimeError("unfinished")), "there"),
        (ValueError('RESOURCE_EXHAUSTED: Error writing "a": No space left on device'), "there"),
    ):
        found = disk_full(error, "there")
        assert found is not None and found.filename == path
    for error in (
        OSError(errno.EACCES, "Permission denied"),
        ValueError("RESOURCE_EXHAUSTED: GPU"),
    ):
        assert disk_full(error, "there") is None


def test_other_processes_would_hear_of_it():
    error = DiskFullError(errno.ENOSPC, "No space left on device", "file")

    def fails():
        raise error

    with pytest.raises(DiskFullError) as caught:
        on_first_process(fails)
    assert caught.value is error
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (DiskFullError, str(error))


def test_the_status_is_its_own_also_where_a_command_has_words_for_it(capsys):
    denied = PermissionError(13, "Permission denied", "f")
    for error, status, said in (
        (OSError(errno.ENOSPC, "No space left on device", "f"), 74, "error: f: cannot be written"),
        (InputError("--output: wrong"), "error: --output: wrong", ""),
        (denied, "error: [Errno 13] Permission denied: 'f'", ""),
    ):
        with pytest.raises(SystemExit) as caught, one_line():
            raise error
        assert caught.value.code == status
        assert capsys.readouterr().err.startswith(said)
    with pytest.raises(SystemExit) as caught, one_line():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise InputError("--output: out.png cannot be written. Make room") from error
    assert caught.value.code == DISK_FULL_STATUS
    assert capsys.readouterr().err == "error: --output: out.png cannot be written. Make room\n"
    with pytest.raises(ZeroDivisionError), one_line():
        raise ZeroDivisionError
    with pytest.raises(PermissionError), one_line(InputError):
        raise PermissionError(13, "Permission denied", "f")


def test_abandoned_writes_of_orbax_print_nothing_and_others_do(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    for _ in range(2):
        with one_line():
            pass
    for error in (RuntimeError("Event loop is closed"), RuntimeError("another"), OSError(5, "no")):
        sys.unraisablehook(SimpleNamespace(exc_value=error))
    assert [str(unraisable.exc_value) for unraisable in seen] == ["another", "[Errno 5] no"]


def test_a_full_standard_output_is_one_line():
    command = [sys.executable, "launch.py", "--mode=describe"]
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            command, cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert run.returncode == DISK_FULL_STATUS
    assert run.stderr.startswith("error: standard output, or a file that is not named: cannot be")
    assert run.stderr.count("\n") == 1


# Threads of orbax that end early.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_without_room_leaves_those_before_it_and_can_be_saved_later(tmp_path, capfd):
    with (
        pytest.raises(DiskFullError, match=f"^{tmp_path}: cannot be written"),
        Checkpoints(tmp_path) as checkpoints,
    ):
        checkpoints.save(1, noise(1))
        checkpoints.wait()
        with room_for(20_000):
            checkpoints.save(2, noise(2))
            checkpoints.wait()
    assert "Traceback" not in capfd.readouterr().err
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1
        np.testing.assert_array_equal(checkpoints.restore(noise(0))["a"], noise(1)["a"])
        checkpoints.save(2, noise(2))
        np.testing.assert_array_equal(checkpoints.restore(noise(0))["a"], noise(2)["a"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_training_goes_on_when_there_is_room_again(tmp_path, capfd):
    def bulky(done: int):
        plain = stage(0, [])
        initial = lambda: plain.initial() | {"bulk": jnp.asarray(noise(0)["a"])}  # noqa: E731

        def step(number, state, batch):
            if number == done:
                resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
            small = {name: state[name] for name in ("step", "weight")}
            new, losses = plain.step(number, small, batch)
            return new | {"bulk": state["bulk"] + 1}, losses

        return plain._replace(
            initial=initial, step=step, abstract=initial(), evaluate=lambda state: {"mAP": 0.5}
        )

    with room_for(10**9), pytest.raises(DiskFullError, match="stage/checkpoints: cannot be writt"):
        run_stage(bulky(2), tmp_path, tiny_config())
    assert "Traceback" not in capfd.readouterr().err
    state, _ = run_stage(bulky(9), tmp_path, tiny_config())
    np.testing.assert_array_equal(state["bulk"], noise(0)["a"] + 1 + 1 + 1 + 1 + 1)
    log = (tmp_path / "metrics.jsonl").read_text().splitlines()
    trained = [json.loads(line)["step"] for line in log if '"train"' in line]
    assert trained == [1, 2, 3, 4, 5]


def test_metrics_without_room_are_named(tmp_path):
    stream = io.StringIO()
    log = RunLog(tmp_path, 100, stream=stream)
    log.train(1, {"loss": 1.0})
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with room_for(len(before) + 10), pytest.raises(DiskFullError, match=r"metrics\.jsonl: cannot"):
        log.train(2, {"loss": 1.0})
    log.close()
    # The rest of a row is dropped by the next start.
    with RunLog(tmp_path, 100, stream=stream, resume_step=1):
        assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_tensorboard_without_room_is_named_and_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "_FLUSH_SECONDS", 0.0)
    log = RunLog(tmp_path, 100, stream=io.StringIO())
    with (
        room_for(3000),
        pytest.raises(DiskFullError, match=r"tensorboard/dgnet: cannot be written"),
    ):
        for step in range(100):
            log.image(step, "noise", PICTURE)
    with contextlib.suppress(DiskFullError):
        log.close()


def test_a_data_set_without_room_is_not_prepared(tmp_path, capsys):
    root = draw_market(tmp_path)
    with room_for(2000), pytest.raises(SystemExit) as caught:
        prepare.main(["market1501", str(root), str(tmp_path / "records")])
    assert caught.value.code == DISK_FULL_STATUS
    ended(capsys, tmp_path / "records")
    assert [name for name in files_of(tmp_path / "records") if "incomplete" not in name] == []
    prepare.main(["market1501", str(root), str(tmp_path / "records")])


def test_a_drawing_without_room_is_not_taken_for_a_data_set(tmp_path):
    with room_for(300), pytest.raises(DiskFullError):
        draw_tiny_data(tmp_path / "data")
    assert files_of(tmp_path) == {}


def test_a_process_that_draws_says_that_the_disk_is_full(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(synthetic, "available_cpus", lambda: 2)
    monkeypatch.setattr(synthetic, "_LEAST_SHARE", 1)
    with room_for(300), pytest.raises(DiskFullError, match=str(tmp_path)):
        draw_tiny_data(tmp_path / "data")
    assert files_of(tmp_path) == {}
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("full") / "run"
    save_run(workdir)
    return workdir


def test_an_export_without_room_keeps_the_one_before(run, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / ARTEFACT).write_bytes(b"before")
    before = files_of(out)
    with room_for(5000), pytest.raises(SystemExit) as caught:
        export.main([str(run), str(out)])
    assert caught.value.code == DISK_FULL_STATUS
    ended(capsys, out / ARTEFACT)
    assert files_of(out) == before


@pytest.mark.parametrize("flag", ["--to-safetensors", "--to-released"])
def test_a_conversion_without_room_keeps_what_was_there(run, tmp_path, capsys, flag):
    from dgnet_jax.convert.__main__ import main

    if flag == "--to-released":
        pytest.importorskip("torch")
        target = named = tmp_path / "released"
        main([flag, str(run), str(target)])
        named = target / "gen_00000003.pt"
    else:
        target = named = tmp_path / "run.safetensors"
        target.write_bytes(b"before")
    before = files_of(tmp_path)
    capsys.readouterr()
    with room_for(5000), pytest.raises(SystemExit) as caught:
        main([flag, str(run), str(target)])
    assert caught.value.code == DISK_FULL_STATUS
    ended(capsys, named)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("size", [0, 100])
def test_a_work_directory_without_room_is_refused(tmp_path, capsys, size):
    """For its lock, or its configuration."""
    folder = tmp_path / "run"
    with room_for(size), pytest.raises(SystemExit) as caught, one_line():
        work_directory.prepare(folder, tiny_config())
    work_directory.unlock(folder)
    assert caught.value.code == DISK_FULL_STATUS
    said = f"error: --workdir={folder}: cannot be written to (File too large). "
    assert capsys.readouterr().err == said + "Choose another folder.\n"
    assert set(files_of(tmp_path)) == {"run/.lock"}
