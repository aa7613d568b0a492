"""A run that is killed, stopped or wrongly started, each for real, in a process of its own."""

import re
import shutil
import signal
from pathlib import Path

import pytest
from processes import rows, saved_steps
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


@pytest.fixture(scope="module")
def uninterrupted(launcher, tmp_path_factory) -> Path:
    """The work directory of a run that nothing happened to, with the log of its compilations."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    run = launcher.finish(workdir, *FLAGS, environment={"JAX_LOG_COMPILES": "1"})
    (workdir / "said.txt").write_text(run.said())
    return workdir


def restored_step(said: str, stage: str) -> int:
    found = re.search(rf"{stage}: continuing from step (\d+)", said)
    assert found, said
    return int(found[1])


def assert_bit_identical(workdir: Path, uninterrupted: Path) -> None:
    """Every loss of every step and every metric, before and after the interruptions."""
    found, expected = rows(workdir), rows(uninterrupted)
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        assert found[key] == row, key


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
    launcher, uninterrupted, tmp_path
):
    workdir = tmp_path / "killed"
    run = launcher.start(workdir, *FLAGS)
    run.wait_until(lambda: bool(saved_steps(workdir, "teacher")[1:]))
    run.kill()
    assert run.end() == -signal.SIGKILL
    assert "dgnet step 0 evaluated" not in run.said()

    run = launcher.start(workdir, *FLAGS)

    def in_the_middle_of_a_save() -> bool:
        saved = saved_steps(workdir, "dgnet")
        unfinished = list((workdir / "dgnet" / "checkpoints").glob("*tmp*"))
        return bool(saved) and saved[-1] >= (6 if unfinished else 15)

    run.wait_until(in_the_middle_of_a_save)
    run.kill()
    assert run.end() == -signal.SIGKILL
    assert restored_step(run.said(), "teacher") > 0
    last = saved_steps(workdir, "dgnet")[-1]
    assert 0 < last < STEPS

    run = launcher.finish(workdir, *FLAGS)
    assert restored_step(run.said(), "dgnet") == last
    assert_bit_identical(workdir, uninterrupted)


def test_sigterm_saves_this_very_step_and_the_run_goes_on_from_it(
    launcher, uninterrupted, tmp_path
):
    workdir = tmp_path / "stopped"
    # With the other run's teacher: a teacher stage less, and the same losses.
    flags = (*FLAGS, f"--config.teacher.checkpoint={uninterrupted}")
    run = launcher.start(workdir, *flags)
    run.wait_until(lambda: (workdir / "metrics.jsonl").exists() and len(rows(workdir)) > 5)
    run.terminate()
    assert run.end() == 143, run.said()
    stopped = re.search(r"SIGTERM: stopped and saved at step (\d+) of the dgnet stage", run.said())
    assert stopped, run.said()
    step = int(stopped[1])
    assert step == saved_steps(workdir, "dgnet")[-1]
    assert max(row[2] for row in rows(workdir)) == step

    run = launcher.finish(workdir, *flags)
    assert restored_step(run.said(), "dgnet") == step
    expected = {key: row for key, row in rows(uninterrupted).items() if key[1] == "dgnet"}
    assert rows(workdir) == expected


def test_a_finished_run_is_evaluated_to_its_last_metrics(launcher, uninterrupted, tmp_path):
    before = (uninterrupted / "metrics.jsonl").read_bytes()
    run = launcher.finish(uninterrupted, "--mode=evaluate", config=None)
    metrics = rows(uninterrupted)["evaluation", "dgnet", STEPS]
    figures = " | ".join(f"{100 * metrics[name]:8.2f}" for name in ("rank1", "rank5", "rank10"))
    shown = [line for line in run.said().splitlines() if line.startswith("| alpha 0.5 ")]
    assert re.sub(" +", " ", figures.strip()) in re.sub(" +", " ", shown[0])
    assert (uninterrupted / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_started_again_only_prints_its_table(launcher, uninterrupted):
    before = rows(uninterrupted)
    run = launcher.finish(uninterrupted, *FLAGS)
    assert "Rank@1" in run.said()
    assert rows(uninterrupted) == before


def test_a_work_directory_of_another_configuration_is_refused(launcher, uninterrupted):
    flags = (*FLAGS, "--config.seed=1", "--config.teacher.learning_rate=0.5")
    said = launcher.refusal(uninterrupted, *flags)
    assert "  seed: 0 there, 1 now\n" in said
    assert "  teacher.learning_rate: 0.05 there, 0.5 now\n" in said
    assert "Traceback" not in said
    assert work_directory.load_config(uninterrupted).seed == 0


def test_a_work_directory_in_use_is_refused(launcher, uninterrupted, tmp_path):
    flags = (*FLAGS, "--config.total_steps=1000000", f"--config.teacher.checkpoint={uninterrupted}")
    first = launcher.start(tmp_path / "used", *flags)
    first.wait_until((tmp_path / "used" / "metrics.jsonl").exists)
    second = launcher.start(tmp_path / "used", *flags)
    assert second.end() == 1
    assert f"another process is training in it (pid {first.pid} on" in second.said()
    first.kill()
    first.end()


def test_a_diverging_run_stops_with_the_step_the_loss_and_the_last_good_checkpoint(
    launcher, uninterrupted, tmp_path
):
    flags = (
        *FLAGS,
        f"--config.teacher.checkpoint={uninterrupted}",
        "--config.optimizer.appearance_learning_rate=1e30",
    )
    run = launcher.start(tmp_path / "diverged", *flags)
    assert run.end() == 1
    message = run.said().splitlines()[-1]
    assert re.match(r"error: step [234]: .*identity nan.*: the training diverged\.", message)
    assert "The last good checkpoint is of step 0" in message
    assert saved_steps(tmp_path / "diverged", "dgnet") == [0]


def test_a_teacher_of_nowhere_is_refused(launcher, tmp_path):
    flag = f"--config.teacher.checkpoint={tmp_path}/nowhere"
    said = launcher.refusal(tmp_path / "new", flag)
    assert f"--config.teacher.checkpoint: no trained teacher in {tmp_path}/nowhere" in said


def test_an_unfinished_teacher_is_refused(launcher, uninterrupted, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(uninterrupted / "teacher", other / "teacher")
    shutil.copy(uninterrupted / work_directory.CONFIG_FILE, other)
    shutil.rmtree(other / "teacher" / "checkpoints" / str(TEACHER_STEPS))
    said = launcher.refusal(tmp_path / "new", *FLAGS, f"--config.teacher.checkpoint={other}")
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
