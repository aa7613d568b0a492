"""A run that is killed, stopped or wrongly started, each for real, in a process of its own."""

import re
import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import launch_here, rows, saved_steps
from tiny import tiny_config

from dgnet_jax.runtime import workdir as work_directory

pytestmark = pytest.mark.slow

TEACHER_STEPS, STEPS = 12, 30
FLAGS = (
    f"--config.teacher.total_steps={TEACHER_STEPS}",
    f"--config.total_steps={STEPS}",
    "--config.log.checkpoint_every_steps=3",
    "--config.evaluation.every_steps=10",
)
# With one program instead of two, where a test is not about the ramps.
WITHOUT_RAMPS = "--config.ramp.start=1000"


@pytest.fixture(scope="module")
def uninterrupted(launcher, tmp_path_factory) -> Path:
    """The work directory of a run that nothing happened to, with the log of its compilations."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    run = launcher.finish(workdir, *FLAGS, environment={"JAX_LOG_COMPILES": "1"})
    (workdir / "said.txt").write_text(run.said())
    return workdir


class Interrupted(NamedTuple):
    """A run that was killed in its teacher stage, stopped, killed, and then finished.

    Attributes:
        workdir: its work directory.
        starts: what its four starts printed.
        saved: the last checkpoint of DG-Net after the second and the third start.
        logged: the last step in the log after the second.
        refused: what a start printed while the second was running.
        pid: of the second.
    """

    workdir: Path
    starts: list[str]
    saved: list[int]
    logged: int
    refused: str
    pid: int


@pytest.fixture(scope="module")
def interrupted(launcher, tmp_path_factory) -> Interrupted:
    workdir = tmp_path_factory.mktemp("interrupted")
    killed = launcher.start(workdir, *FLAGS)
    killed.wait_until(lambda: bool(saved_steps(workdir, "teacher")[1:]))
    killed.kill()
    assert killed.end() == -signal.SIGKILL

    stopped = launcher.start(workdir, *FLAGS)
    stopped.wait_until(lambda: ("train", "dgnet", 5) in rows(workdir))
    # It is there, but does not move.
    stopped.send_signal(signal.SIGSTOP)
    try:
        refused = launcher.refusal(workdir, *FLAGS)
    finally:
        stopped.send_signal(signal.SIGCONT)
    stopped.terminate()
    assert stopped.end() == 143, stopped.said()
    saved = [saved_steps(workdir, "dgnet")[-1]]
    logged = max(step for _, stage, step in rows(workdir) if stage == "dgnet")

    again = launcher.start(workdir, *FLAGS)

    def in_the_middle_of_a_save() -> bool:
        later = saved_steps(workdir, "dgnet")[-1]
        unfinished = list((workdir / "dgnet" / "checkpoints").glob("*tmp*"))
        return later >= saved[0] + (3 if unfinished else 12)

    again.wait_until(in_the_middle_of_a_save)
    again.kill()
    assert again.end() == -signal.SIGKILL
    saved.append(saved_steps(workdir, "dgnet")[-1])

    finished = launcher.finish(workdir, *FLAGS)
    starts = [run.said() for run in (killed, stopped, again, finished)]
    return Interrupted(workdir, starts, saved, logged, refused, stopped.pid)


def restored_step(said: str, stage: str) -> int:
    found = re.search(rf"{stage}: continuing from step (\d+)", said)
    assert found, said
    return int(found[1])


def test_a_whole_run_traces_each_program_once(uninterrupted):
    said = (uninterrupted / "said.txt").read_text()
    # The teacher's step, and DG-Net's before and after the ramps begin.
    assert said.count("Finished tracing step for jit") == 3
    assert said.count("Compiling jit(step)") == 3


def test_a_whole_run_evaluates_at_its_start_every_n_steps_and_at_its_end(uninterrupted):
    found = rows(uninterrupted)
    steps = {
        stage: [step for kind, of, step in found if (kind, of) == ("evaluation", stage)]
        for stage in ("teacher", "dgnet")
    }
    assert steps == {"teacher": [0, TEACHER_STEPS], "dgnet": [0, 10, 20, STEPS]}
    fields = {"rank1", "rank5", "rank10", "mAP", "mAP_standard", "mINP"}
    assert fields <= found["evaluation", "dgnet", STEPS].keys()
    # Inactive terms are left out until the third step, which the ramps begin with.
    ramped = {"structure_code", "appearance_code", "cycle", "teacher"}
    assert not ramped & found["train", "dgnet", 2].keys()
    assert ramped <= found["train", "dgnet", 3].keys()


def test_a_run_killed_in_both_stages_goes_on_to_the_same_losses_bit_for_bit(
    uninterrupted, interrupted
):
    first, second, _, last = interrupted.starts
    assert "dgnet step 0 evaluated" not in first
    assert restored_step(second, "teacher") > 0
    assert "dgnet step 0 evaluated" in second
    saved = interrupted.saved[1]
    assert interrupted.saved[0] < saved < STEPS
    assert restored_step(last, "dgnet") == saved
    # Every loss of every step and every metric, before and after the interruptions.
    found, expected = rows(interrupted.workdir), rows(uninterrupted)
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        assert found[key] == row, key


def test_sigterm_saves_this_very_step_and_the_run_goes_on_from_it(interrupted):
    _, said, following, _ = interrupted.starts
    stopped = re.search(r"SIGTERM: stopped and saved at step (\d+) of the dgnet stage", said)
    assert stopped, said
    step = int(stopped[1])
    assert step == interrupted.saved[0] == interrupted.logged
    assert restored_step(following, "dgnet") == step


def test_a_work_directory_in_use_is_refused(interrupted):
    message = f"another process is training in it (pid {interrupted.pid} on"
    assert message in interrupted.refused


def test_a_finished_run_is_evaluated_to_its_last_metrics(launcher, uninterrupted):
    before = (uninterrupted / "metrics.jsonl").read_bytes()
    run = launch_here(launcher.arguments(uninterrupted, "--mode=evaluate", config=None))
    assert run.code == 0
    metrics = rows(uninterrupted)["evaluation", "dgnet", STEPS]
    figures = " | ".join(f"{100 * metrics[name]:8.2f}" for name in ("rank1", "rank5", "rank10"))
    shown = [line for line in run.said.splitlines() if line.startswith("| alpha 0.5 ")]
    assert re.sub(" +", " ", figures.strip()) in re.sub(" +", " ", shown[0])
    assert (uninterrupted / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_started_again_only_prints_its_table(launcher, uninterrupted):
    before = rows(uninterrupted)
    run = launch_here(launcher.arguments(uninterrupted, *FLAGS))
    assert run.code == 0
    assert "Rank@1" in run.said
    assert rows(uninterrupted) == before


def test_a_work_directory_of_another_configuration_is_refused(launcher, uninterrupted):
    flags = (*FLAGS, "--config.seed=1", "--config.teacher.learning_rate=0.5")
    said = launcher.refusal(uninterrupted, *flags)
    assert "  seed: 0 there, 1 now\n" in said
    assert "  teacher.learning_rate: 0.05 there, 0.5 now\n" in said
    assert "Traceback" not in said
    assert work_directory.load_config(uninterrupted).seed == 0


def test_a_diverging_run_stops_with_the_step_the_loss_and_the_last_good_checkpoint(
    launcher, uninterrupted, tmp_path
):
    said = launcher.refusal(
        tmp_path / "diverged",
        *FLAGS,
        WITHOUT_RAMPS,
        "--config.evaluation.every_steps=-1",
        f"--config.teacher.checkpoint={uninterrupted}",
        "--config.optimizer.appearance_learning_rate=1e30",
    )
    message = said.splitlines()[-1]
    assert re.match(r"error: step [234]: .*identity nan.*: the training diverged\.", message)
    assert "The last good checkpoint is of step 0" in message
    assert saved_steps(tmp_path / "diverged", "dgnet") == [0]


def test_a_teacher_of_nowhere_is_refused(launcher, tmp_path):
    flag = f"--config.teacher.checkpoint={tmp_path}/nowhere"
    said = launcher.refusal(tmp_path / "new", WITHOUT_RAMPS, flag)
    assert f"--config.teacher.checkpoint: no trained teacher in {tmp_path}/nowhere" in said


def test_an_unfinished_teacher_is_refused(launcher, uninterrupted, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(uninterrupted / "teacher", other / "teacher")
    shutil.copy(uninterrupted / work_directory.CONFIG_FILE, other)
    shutil.rmtree(other / "teacher" / "checkpoints" / str(TEACHER_STEPS))
    flag = f"--config.teacher.checkpoint={other}"
    said = launcher.refusal(tmp_path / "new", *FLAGS, WITHOUT_RAMPS, flag)
    assert f"the teacher in {other} is unfinished, at step 9 of {TEACHER_STEPS}" in said


@pytest.mark.parametrize(
    "config, messages",
    [
        ("market.py:l1_rmes", ["unknown loss 'l1_rmes'; the nearest is 'l1_rmse'", "known losses"]),
        ("market.py:l1,smal", ["unknown flag 'smal'", "nearest is 'small'", "baseline, medium"]),
        ("market.py", ["no Market-1501 there", "Market-1501 is a person re-identification data"]),
    ],
)
def test_a_wrong_start_ends_without_a_traceback(launcher, tmp_path, config, messages):
    said = launcher.refusal(
        tmp_path / "new", f"--config.data.root={tmp_path}/empty", config=f"configs/{config}"
    )
    for message in messages:
        assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "new").exists()


def test_the_tiny_configuration_is_the_published_one_but_for_sizes():
    assert tiny_config().weights.to_dict() == dict(
        gan=1,
        self_reconstruction=5,
        same_identity_reconstruction=5,
        identity=1,
        same_identity=1,
        generated_identity=0.5,
        structure_code=1,
        appearance_code=1,
        cycle=2,
        teacher=2,
        fine=0.2,
    )
