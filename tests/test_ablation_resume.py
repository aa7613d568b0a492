"""Studies with tiny networks, each for real, in processes of their own: killed, stopped, split."""

import json
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from processes import Run, rows, saved_steps

pytestmark = pytest.mark.slow

# The second loss overflows float32 in its first step.
LOSSES, SEEDS = ("l1_rmse", "1e38mse"), (0, 1)
# All terms act from the first step on, so that a loss has one program; that a run has another
# before its ramps is of test_resume.py.
TRAINING = (
    "--config.teacher.total_steps=12",
    "--config.total_steps=20",
    "--config.log.checkpoint_every_steps=4",
    "--config.ramp.start=-2",
)
FLAGS = ("--mode=ablate", "--losses=l1_rmse,1e38*mse", "--seeds=0,1", *TRAINING)
# Fields of a result that differ from one study to the next.
OWN = ("wall_seconds", "date")


@pytest.fixture(scope="module")
def uninterrupted(launcher, tmp_path_factory) -> Path:
    """The folder of a study that nothing happened to, with the log of its compilations."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    run = launcher.finish(workdir, *FLAGS, environment={"JAX_LOG_COMPILES": "1"})
    (workdir / "said.txt").write_text(run.said())
    return workdir


class Interrupted(NamedTuple):
    """A study to which much happened.

    Attributes:
        workdir: its folder.
        shards: what its two parts printed; the first was killed while it trained the teacher.
        stopped: what a start printed that SIGTERM ended.
        finished: the results that the last start found, and when they were written.
    """

    workdir: Path
    shards: list[str]
    stopped: str
    finished: dict[Path, int]


@pytest.fixture(scope="module")
def interrupted(launcher, tmp_path_factory) -> Interrupted:
    """A study that is split, and killed in its teacher; killed; stopped; killed; finished."""
    workdir = tmp_path_factory.mktemp("interrupted")
    moments = random.Random(0)

    def kill(run: Run, after: Callable[[], bool]) -> None:
        run.wait_until(after)
        time.sleep(moments.uniform(0, 1))
        assert run.poll() is None, run.said()
        run.kill()
        assert run.end() == -signal.SIGKILL

    shards = [launcher.start(workdir, *FLAGS, f"--shard={index}/2") for index in range(2)]
    # The first stands still in the teacher's training until the second waits for it.
    shards[1].send_signal(signal.SIGSTOP)
    shards[0].wait_until(lambda: bool(saved_steps(workdir / "teacher", "teacher")))
    shards[0].send_signal(signal.SIGSTOP)
    shards[1].send_signal(signal.SIGCONT)
    shards[1].wait_until(lambda: "waiting for the teacher" in shards[1].said())
    shards[0].send_signal(signal.SIGCONT)
    kill(shards[0], lambda: True)
    assert shards[1].end() == 0, shards[1].said()

    seed_0 = run_folder(workdir, "l1_rmse", 0)
    kill(launcher.start(workdir, *FLAGS), lambda: bool(saved_steps(seed_0, "dgnet")[1:]))

    stopped = launcher.start(workdir, *FLAGS)
    stopped.wait_until(lambda: trains(stopped))
    stopped.terminate()
    assert stopped.end() == 143, stopped.said()

    last = launcher.start(workdir, *FLAGS)
    kill(last, lambda: trains(last) and len(results(workdir)) >= 3)
    finished = {file: file.stat().st_mtime_ns for file in workdir.glob("runs/*/*/result.json")}
    launcher.finish(workdir, *FLAGS, "--shard=0/2")
    return Interrupted(workdir, [shard.said() for shard in shards], stopped.said(), finished)


def trains(run: Run) -> bool:
    """Whether it has begun a run of the study, or gone on with one."""
    return bool(re.search(r"dgnet step 0 evaluated|dgnet: continuing from step", run.said()))


def run_folder(workdir: Path, loss: str, seed: int) -> Path:
    return workdir / "runs" / loss / f"seed_{seed}"


def results(workdir: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """result.json of each run, without what is each study's own."""
    found = {}
    for file in workdir.glob("runs/*/*/result.json"):
        row = json.loads(file.read_text())
        found[row["loss"], row["seed"]] = {name: row[name] for name in row if name not in OWN}
    return found


def tables(workdir: Path) -> dict[str, str]:
    """What was made of all results: the tables, and results.json without what is each study's."""
    found = {file.name: file.read_text() for file in (workdir / "tables").iterdir()}
    whole = json.loads((workdir / "results.json").read_text())
    kept = [{name: row[name] for name in row if name not in OWN} for row in whole]
    return found | {"results.json": json.dumps(kept)}


def test_a_study_trains_its_teacher_once_and_compiles_each_program_once(uninterrupted):
    said = (uninterrupted / "said.txt").read_text()
    # The teacher's step, and one for each loss, whatever the number of seeds.
    assert said.count("Finished tracing step for jit") == 1 + 2
    assert said.count("Compiling jit(step)") == 1 + 2
    assert said.count("teacher step 12 evaluated") == 1
    assert not (run_folder(uninterrupted, "l1_rmse", 1) / "teacher").exists()


def test_a_study_measures_each_run_and_goes_on_after_one_that_diverges(uninterrupted):
    found = results(uninterrupted)
    assert found.keys() == {(loss, seed) for loss in LOSSES for seed in SEEDS}
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
        *TRAINING,
        "--config.seed=1",
        "--config.reconstruction_loss=l1_rmse",
        f"--config.teacher.checkpoint={uninterrupted / 'teacher'}",
    )
    assert rows(tmp_path / "ordinary") == rows(run_folder(uninterrupted, "l1_rmse", 1))


def test_a_study_killed_at_three_random_moments_comes_to_the_same_results(
    uninterrupted, interrupted
):
    workdir, finished = interrupted.workdir, interrupted.finished
    assert len(finished) == 3
    assert results(workdir) == results(uninterrupted)
    for loss in LOSSES:
        for seed in SEEDS:
            run = run_folder(workdir, loss, seed)
            assert rows(run) == rows(run_folder(uninterrupted, loss, seed))
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert tables(workdir) == tables(uninterrupted)
    assert (workdir / "report" / "index.html").is_file()


def test_sigterm_saves_and_the_study_goes_on(uninterrupted, interrupted):
    assert re.search(r"SIGTERM: stopped", interrupted.stopped), interrupted.stopped
    assert results(interrupted.workdir) == results(uninterrupted)


def test_two_shards_at_once_share_one_teacher_and_either_reports_all(uninterrupted, interrupted):
    first, second = interrupted.shards
    # The second waits for the teacher, and goes on with it when the first is killed.
    assert "teacher step 0 evaluated" in first
    assert not re.search(r"teacher step (0|12) evaluated", second[: second.index("waiting for")])
    assert "teacher: continuing from step" in second
    assert "teacher step 12 evaluated" in second
    # It has its own part to report, and the other, which is started again as last of all, all.
    assert "Not over yet: l1_rmse seed 0, l1_rmse seed 1." in second
    assert tables(interrupted.workdir) == tables(uninterrupted)


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
