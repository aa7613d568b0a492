"""`launch.py --mode=generate`, each time for real; what is killed in a process of its own."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from drawn_market import smooth_image
from PIL import Image
from processes import Launcher, Run, files_of, launch_here
from trained import BEST, save_evaluated, save_run

from dgnet_jax.figures import image_grid

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(launcher, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    save_run(folder, {"data.root": str(launcher.data), "data.name": "folder"})
    return folder


def start(
    launcher: Launcher, workdir: Path, task: str, output: Path, *flags: str, **options
) -> Run:
    flags = ("--mode=generate", f"--task={task}", f"--output={output}", *flags)
    return launcher.start(workdir, *flags, config=None, **options)


def finish(launcher: Launcher, workdir: Path, task: str, output: Path, *flags: str) -> str:
    """What a run prints that comes to a good end, without a process of its own."""
    flags = ("--mode=generate", f"--task={task}", f"--output={output}", *flags)
    run = launch_here(launcher.arguments(workdir, *flags, config=None))
    assert run.code == 0, run.said
    return run.said


def refusal(launcher: Launcher, workdir: Path, task: str, output: Path, *flags: str) -> str:
    flags = ("--mode=generate", f"--task={task}", f"--output={output}", *flags)
    return launcher.refusal(workdir, *flags, config=None)


def test_a_set_killed_stopped_and_restarted_is_byte_for_byte_the_same(launcher, workdir, tmp_path):
    flags = ("--count=4000", "--seed=2")
    whole = start(launcher, workdir, "dataset", tmp_path / "whole", *flags)
    assert whole.end() == 0, whole.said()
    folder = tmp_path / "killed"
    manifest = folder / "manifest.csv"

    def listed() -> int:
        return manifest.read_text().count("\n") - 1 if manifest.exists() else 0

    run = start(launcher, workdir, "dataset", folder, *flags)
    run.wait_until(lambda: listed() >= 1024)
    run.kill()
    assert run.end() == -signal.SIGKILL
    before = listed()
    assert 1024 <= before < 4000

    run = start(launcher, workdir, "dataset", folder, *flags)
    run.wait_until(lambda: listed() > before)
    run.terminate()
    assert run.end() == 143, run.said()
    assert f"continuing behind image {before} of 4006" in run.said()
    assert "The same command goes on from there" in run.said()
    assert before < listed() < 4000
    assert not list(folder.rglob("*.tmp"))

    last = start(launcher, workdir, "dataset", folder, *flags)
    assert last.end() == 0, last.said()
    assert files_of(folder) == files_of(tmp_path / "whole")


def test_several_devices_paint_what_one_does(launcher, workdir, tmp_path):
    flags = ("--count=40", "--nosoft_labels", "--quality=95")
    finish(launcher, workdir, "dataset", tmp_path / "1", *flags)
    run = start(launcher, workdir, "dataset", tmp_path / "4", *flags, devices=4)
    assert run.end() == 0, run.said()
    names = sorted(path.name for path in (tmp_path / "1").glob("bounding_box_train/*"))
    assert len(names) == 40
    for name in names:
        one, four = (
            np.asarray(Image.open(tmp_path / devices / "bounding_box_train" / name)).astype(int)
            for devices in ("1", "4")
        )
        # A pixel of another level is another JPEG.
        assert np.abs(one - four).mean() < 0.5


def test_swap_writes_the_grid_with_its_originals_and_says_what_it_is(launcher, workdir, tmp_path):
    said = finish(launcher, workdir, "swap", tmp_path, "--count=3", "--seed=1")
    path = tmp_path / "swap.png"
    assert f"wrote {path}" in said
    with Image.open(path) as figure:
        info = figure.info
        # 3 x 3 swaps and the row and column of originals, 32 x 16 pixels, 4 times enlarged.
        blank = np.zeros((32, 16, 3), np.uint8)
        least = image_grid([[blank] * 4] * 4, scale=4)
        assert figure.width >= least.width and figure.height >= least.height
    assert info["generator"].startswith(f"{workdir.name} step 3 weights ")
    assert info["seed"] == "1"
    assert len(info["appearance_sources"].splitlines()) == 3
    assert info["structure_sources"] == info["appearance_sources"]


def test_pairs_of_two_folders_of_odd_files(launcher, workdir, tmp_path, caplog):
    first, second, output = (tmp_path / name for name in ("first", "second", "output"))
    first.mkdir()
    second.mkdir()
    smooth_image(0).convert("CMYK").save(first / "red.jpg")
    smooth_image(1, 300, 200).save(first / "red.png")
    (first / "notes.txt").write_text("no image")
    gray = os.fsdecode(b"gr\xe4y")  # Latin-1, no UTF-8
    smooth_image(2).convert("L").save(second / f"{gray}.bmp")
    flags = (f"--appearance={first}", f"--structure={second}")
    finish(launcher, workdir, "pairs", output, *flags)
    assert "notes.txt: skipped: not an image" in caplog.text
    names = [f"appearance-red.{suffix}_structure-{gray}.png" for suffix in ("jpg", "png")]
    assert sorted(path.name for path in output.iterdir()) == names
    with Image.open(output / names[0]) as image:
        assert image.size == (16, 32)
        assert image.info["appearance_sources"] == str(first / "red.jpg")
        assert image.info["structure_sources"] == str(second / "gr\\udce4y.bmp")


def test_interpolations_as_strips_and_animations(launcher, workdir, tmp_path):
    finish(launcher, workdir, "interpolate", tmp_path, "--frames=5", "--animation=webp")
    for kind in ("appearance", "structure"):
        with Image.open(tmp_path / f"interpolate_{kind}.png") as strip:
            assert len(strip.info[f"{kind}_sources"].splitlines()) == 2
        with Image.open(tmp_path / f"interpolate_{kind}.webp") as animation:
            assert animation.n_frames == 5 + 3


def test_the_best_checkpoint_paints(launcher, tmp_path):
    fields = {"data.root": str(launcher.data), "data.name": "folder"}
    config, state, _ = save_run(tmp_path / "run", fields)
    save_evaluated(tmp_path / "run", config, (state, state))
    finish(launcher, tmp_path / "run", "swap", tmp_path, "--count=2", "--step=best")
    with Image.open(tmp_path / "swap.png") as figure:
        assert f" step {BEST} " in figure.info["generator"]


@pytest.mark.parametrize(
    "task, flags, message",
    [
        ("swop", (), "unknown task 'swop'; the nearest is 'swap'; known tasks: swap, interpolate,"),
        ("", (), "--task is missing; known tasks: swap, interpolate, pairs, dataset"),
        ("swap", ("--appearance=nowhere",), "--appearance: no file or folder nowhere"),
        ("pairs", (), "--task=pairs needs --appearance=FOLDER and --structure=FOLDER"),
        ("swap", ("--step=77",), "no checkpoint of step 77; found steps [3]"),
        ("swap", ("--step=best",), "no checkpoint has an evaluation"),
        ("swap", ("--step=last",), "flag --step=last: found 'last'. Give a number of steps, or"),
        ("dataset", ("--quality=200",), "--quality: found 200. Give 1 to 95"),
        ("interpolate", ("--animation=avi",), "--animation: found 'avi', neither 'gif' nor"),
        ("dataset", ("--config.data.root=nowhere",), "--config.data.root=nowhere"),
    ],
)
def test_wrong_input_ends_without_a_traceback(launcher, workdir, tmp_path, task, flags, message):
    said = refusal(launcher, workdir, task, tmp_path / "output", *flags)
    assert message in said
    assert "error: " in said and "Traceback" not in said
    assert not (tmp_path / "output").exists()


def test_an_output_that_cannot_be_written_is_refused(launcher, workdir, tmp_path):
    (tmp_path / "file").touch()
    said = refusal(launcher, workdir, "swap", tmp_path / "file", "--count=2")
    assert "error: --output: " in said and "cannot be written (File exists)" in said
    assert "Traceback" not in said
