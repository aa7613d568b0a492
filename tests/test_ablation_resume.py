"""Studies with tiny networks, each for real, in processes of their own: killed, stopped, split."""

import json
import random
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from processes import rows, saved_steps

pytestmark = pytest.mark.slow

# The second loss overflows float32 in its first step.
LOSSES, SEEDS = ("l1_rmse", "1e38mse"), (0, 1)
FLAGS = (
    "--mode=ablate",
    "--losses=l1_rmse,1e38*mse",
    "--seeds=0,1",
    "--config.teacher.total_steps=6",
    "--config.total_steps=20",
    "--config.log.checkpoint_every_steps=4",
)
# Fields of a result that differ from one study to the next.
OWN = ("wall_seconds", "date")


@pytest.fixture(scope="module")
def uninterrupted(launcher, tmp_path_factory) -> Path:
    """The folder of a study that nothing happened to, with the log of its compilations."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    run = launcher.finish(workdir, *FLAGS, environment={"JAX_LOG_COMPILES": "1"})
    (workdir / "said.txt").write_text(run.said())
    return workdir


def run_folder(workdir: Path, loss: str, seed: int) -> Path:
    return workdir / "runs" / loss / f"seed_{seed}"


def results(workdir: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """result.json of each run, without what is each study's own."""
    found = {}
    for loss in LOSSES:
        for seed in SEEDS:
            row = json.loads((run_folder(workdir, loss, seed) / "result.json").read_text())
            found[loss, seed] = {name: row[name] for name in row if name not in OWN}
    return found


def tables(workdir: Path) -> dict[str, str]:
    """What was made of all results: the tables, and results.json without what is each study's."""
    found = {file.name: file.read_text() for file in (workdir / "tables").iterdir()}
    whole = json.loads((workdir / "results.json").read_text())
    kept = [{name: row[name] for name in row if name not in OWN} for row in whole]
    return found | {"results.json": json.dumps(kept)}


def over(workdir: Path) -> int:
    return len(list(workdir.glob("runs/*/*/result.json")))


def test_a_study_trains_its_teacher_once_and_compiles_each_program_once(uninterrupted):
    said = (uninterrupted / "said.txt").read_text()
    # The teacher's step, and for each loss, whatever the number of seeds, those before and after
    # the ramps begin: a run traces both before it begins, also one that diverges between them.
    assert said.count("Finished tracing step for jit") == 1 + 2 + 2
    assert said.count("teacher step 6 evaluated") == 1
    assert not (run_folder(uninterrupted, "l1_rmse", 1) / "teacher").exists()


def test_a_study_measures_each_run_and_goes_on_after_one_that_diverges(uninterrupted):
    found = results(uninterrupted)
    for (loss, _), row in found.items():
        if loss == "1e38mse":
            assert (row["status"], row["diverged_step"]) == ("diverged", 1)
            assert row["mAP"] is None
        else:
            assert (row["status"], row["steps"]) == ("finished", 20)
            assert 0 < row["mAP"] <= 1 and row["generated"] == row["real"] > 0
            assert 0 <= row["identity_consistency"] <= 1
    # The seed matters.
    assert len({row["diversity"] for row in found.values() if row["diversity"]}) == 2
    said = (uninterrupted / "said.txt").read_text()
    assert "study: run 4 of 4" in said
    assert "1e+38\\*mse, seed 0: diverged at step 1" in said
    assert (uninterrupted / "report" / "index.html").is_file()


def test_a_studys_run_is_the_ordinary_run_of_its_loss_and_seed(launcher, uninterrupted, tmp_path):
    launcher.finish(
        tmp_path / "ordinary",
        *FLAGS[3:],
        "--config.seed=1",
        "--config.reconstruction_loss=l1_rmse",
        f"--config.teacher.checkpoint={uninterrupted / 'teacher'}",
    )
    assert rows(tmp_path / "ordinary") == rows(run_folder(uninterrupted, "l1_rmse", 1))


def test_a_study_killed_at_three_random_moments_comes_to_the_same_results(
    launcher, uninterrupted, tmp_path
):
    workdir = tmp_path / "killed"
    moments = random.Random(0)
    for after in (
        lambda: bool(saved_steps(workdir / "teacher", "teacher")),
        lambda: bool(saved_steps(run_folder(workdir, "l1_rmse", 0), "dgnet")[2:]),
        lambda: over(workdir) >= 2,
    ):
        run = launcher.start(workdir, *FLAGS)
        run.wait_until(after)
        time.sleep(moments.uniform(0, 1))
        assert run.poll() is None, run.said()
        run.kill()
        assert run.end() == -signal.SIGKILL
    finished = {file: file.stat().st_mtime_ns for file in workdir.glob("runs/*/*/result.json")}
    assert 2 <= len(finished) < 4
    launcher.finish(workdir, *FLAGS)
    assert results(workdir) == results(uninterrupted)
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert tables(workdir) == tables(uninterrupted)
    assert (workdir / "report" / "index.html").is_file()


def test_sigterm_saves_and_the_study_goes_on(launcher, uninterrupted, tmp_path):
    workdir = tmp_path / "stopped"
    workdir.mkdir()
    shutil.copytree(uninterrupted / "teacher", workdir / "teacher")
    run = launcher.start(workdir, *FLAGS)
    log = run_folder(workdir, "l1_rmse", 0) / "metrics.jsonl"
    run.wait_until(lambda: log.exists() and len(rows(log.parent)) > 3)
    run.terminate()
    assert run.end() == 143, run.said()
    assert re.search(r"SIGTERM: stopped", run.said()), run.said()
    launcher.finish(workdir, *FLAGS)
    assert results(workdir) == results(uninterrupted)


def test_two_shards_at_once_share_one_teacher_and_either_reports_all(
    launcher, uninterrupted, tmp_path
):
    workdir = tmp_path / "shards"
    shards = [launcher.start(workdir, *FLAGS, f"--shard={index}/2") for index in range(2)]
    for shard in shards:
        assert shard.end() == 0, shard.said()
    said = [shard.said() for shard in shards]
    assert sum("teacher step 6 evaluated" in text for text in said) == 1
    assert results(workdir) == results(uninterrupted)
    assert any("Not over yet" not in text for text in said)
    assert tables(workdir) == tables(uninterrupted)


def test_a_study_of_another_configuration_is_refused(launcher, uninterrupted):
    said = launcher.refusal(uninterrupted, *FLAGS, "--config.total_steps=30")
    assert "  total_steps: 20 there, 30 now\n" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--losses=l1_rmes", "unknown loss 'l1_rmes'; the nearest is 'l1_rmse'"),
        ("--seeds=0,x", "--seeds: found 'x'"),
        ("--shard=2/2", "i goes from 0 to 1"),
    ],
)
def test_a_wrong_plan_ends_without_a_traceback(launcher, tmp_path, flag, message):
    said = launcher.refusal(tmp_path / "new", "--mode=ablate", flag)
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "new").exists()
