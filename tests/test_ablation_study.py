"""What a study does with its runs; the runs themselves are stood in for."""

import io
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest
from tiny import tiny_config

from dgnet_jax import losses
from dgnet_jax.ablation import Study, runner
from dgnet_jax.ablation.progress import StudyProgress, WallTime
from dgnet_jax.ablation.results import FIELDS, write_result
from dgnet_jax.errors import DivergedError, InputError
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.preemption import Stopped, stopping_at_once
from dgnet_jax.runtime.workdir import InUseError
from dgnet_jax.training.trainer import RESUMABLE

METRICS = {"rank1": 0.5, "mAP": 0.25, "queries": 6.0, "gallery": 20.0}


class Trainer:
    """Stands for `trainer`: remembers what it checks and trains, fails where it is told to."""

    def __init__(self) -> None:
        self.checked: list[tuple[str, int | None]] = []
        self.runs: list[tuple[str, int]] = []
        self.measured: list[tuple[str, int]] = []
        self.fails: dict[tuple[str, int], BaseException] = {}

    def check_run(self, config: Any, session: Any, *, saved: int | None) -> None:
        self.checked.append((config.reconstruction_loss, saved))

    def train(self, config: Any, workdir: Path, *, session: Any, progress: Any) -> dict[str, float]:
        work_directory.unlock(work_directory.prepare(workdir, config, RESUMABLE))
        run = (config.reconstruction_loss, config.seed)
        self.runs.append(run)
        progress(0)
        if run in self.fails:
            raise self.fails.pop(run)
        progress(config.total_steps)
        return METRICS


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(runner, "trainer", trainer)
    session = SimpleNamespace(data=None, teacher=None)
    monkeypatch.setattr(runner, "Session", lambda config, together: session)
    monkeypatch.setattr(runner.Runner, "_teacher", lambda self, session: None)
    monkeypatch.setattr(losses.registry, "DEFINITIONS", dict(losses.registry.DEFINITIONS))

    monkeypatch.setattr(runner, "real_images", lambda *arguments, cache: None)

    def measure(config: Any, folder: Path, data: Any, metrics: Any, real: Any) -> dict[str, Any]:
        trainer.measured.append((config.reconstruction_loss, config.seed))
        found = {"rank1": metrics["rank1"], "mAP": metrics["mAP"], "generated": 10, "real": 10}
        return found | ({"dims": 64, "fid_png": 100.0 + config.seed} if config.inception else {})

    monkeypatch.setattr(runner, "measure", measure)
    return trainer


def make(
    tmp_path: Path, chosen: Any = ("l1", "l1_rmse"), seeds: Any = (0, 1), **more: Any
) -> Study:
    fields = more.pop("fields", None)
    return Study(tiny_config(fields), chosen, seeds, workdir=tmp_path / "study", **more)


def diverging(step: int) -> DivergedError:
    return DivergedError("the training diverged", step, "identity", 0)


def test_every_loss_is_run_with_every_seed(trainer, tmp_path):
    rows = make(tmp_path).run()
    assert trainer.checked == [("l1", None), ("l1_rmse", None)]
    assert trainer.runs == [("l1", 0), ("l1_rmse", 0), ("l1", 1), ("l1_rmse", 1)]
    assert [(row["loss"], row["expression"], row["seed"], row["status"]) for row in rows] == [
        ("l1", "l1", 0, "finished"),
        ("l1", "l1", 1, "finished"),
        ("l1_rmse", "l1+rmse", 0, "finished"),
        ("l1_rmse", "l1+rmse", 1, "finished"),
    ]
    assert all(tuple(row) == FIELDS for row in rows)
    assert rows == json.loads((tmp_path / "study" / "results.json").read_text())
    assert rows[0]["rank1"] == 0.5 and rows[0]["fid_png"] is None and rows[0]["steps"] == 8
    plan = json.loads((tmp_path / "study" / "study.json").read_text())
    assert plan["losses"] == {"l1": "l1", "l1_rmse": "l1+rmse"} and plan["seeds"] == [0, 1]
    assert (tmp_path / "study" / "tables" / "fusions.tex").is_file()


@pytest.mark.parametrize(
    ("saved", "checked"),
    [({}, None), ({0: 0}, None), ({1: 0}, None), ({0: 8, 1: 4}, 4), ({0: 4, 1: 8}, 4)],
)
def test_of_a_losss_runs_the_one_with_the_most_steps_left_is_checked(
    trainer, tmp_path, saved, checked
):
    for seed, step in saved.items():
        run = tmp_path / "study" / "runs" / "l1" / f"seed_{seed}"
        (run / "dgnet" / "checkpoints" / str(step)).mkdir(parents=True)
    make(tmp_path, ["l1"]).run()
    assert trainer.checked == [("l1", checked)]


def test_runs_share_the_studys_teacher(trainer, tmp_path):
    make(tmp_path).run()
    config = work_directory.load_config(tmp_path / "study" / "runs" / "l1" / "seed_1")
    assert config.teacher.checkpoint == str(tmp_path / "study" / "teacher")
    other = make(tmp_path / "b", ["l1"], [0], fields={"teacher.checkpoint": "mine.safetensors"})
    other.run()
    config = work_directory.load_config(other.workdir / "runs" / "l1" / "seed_0")
    assert config.teacher.checkpoint == "mine.safetensors"


def test_finished_runs_are_not_repeated(trainer, tmp_path):
    make(tmp_path, ["l1"]).run()
    trainer.runs.clear()
    rows = make(tmp_path, ["l1", "mse"], [0, 1, 2]).run()
    assert trainer.runs == [("mse", 0), ("mse", 1), ("l1", 2), ("mse", 2)]
    assert len(rows) == 6
    plan = json.loads((tmp_path / "study" / "study.json").read_text())
    assert list(plan["losses"]) == ["l1", "mse"] and plan["seeds"] == [0, 1, 2]


def test_a_diverging_run_is_recorded_and_the_study_goes_on(trainer, tmp_path):
    trainer.fails = {("huber", 0): diverging(5)}
    rows = make(tmp_path, ["huber", "l1"], [0]).run()
    assert trainer.runs == [("huber", 0), ("l1", 0)]
    (row,) = (row for row in rows if row["loss"] == "huber")
    assert (row["status"], row["diverged_step"], row["diverged_loss"], row["steps"]) == (
        *("diverged", 5),
        *("identity", 5),
    )
    assert row["rank1"] is None
    # It would diverge again.
    make(tmp_path, ["huber", "l1"], [0]).run()
    assert len(trainer.runs) == 2
    assert "huber, seed 0: diverged at step 5" in make(tmp_path, ["huber", "l1"], [0]).text()


def test_terms_with_a_loss_of_their_own_are_noted_at_tables_and_claims(trainer, tmp_path):
    """...which else compare with the thesis as if R were the same."""
    note = "These terms have one R in every run, not the row's loss as in the thesis: "
    fields = {"reconstruction.structure_code": "l1", "reconstruction.cycle": "mse"}
    own = make(tmp_path / "own", fields=fields)
    plain = make(tmp_path / "plain")
    own.run()
    plain.run()
    tables, claims = own.text().split("**The thesis's claims**")
    for text in (tables, claims, (own.workdir / "tables" / "fusions.md").read_text()):
        assert f"{note}structure codes (l1), cycle (mse)." in text
    assert note not in plain.text()
    assert note not in (plain.workdir / "tables" / "fusions.md").read_text()


def test_a_stopped_study_goes_on_with_the_run_that_it_was_in(trainer, tmp_path):
    trainer.fails = {("l1_rmse", 0): Stopped("SIGTERM", "dgnet", 4)}
    with pytest.raises(Stopped):
        make(tmp_path).run()
    assert (
        make(tmp_path).text().endswith("Not over yet: l1_rmse seed 0, l1 seed 1, l1_rmse seed 1.")
    )
    trainer.runs.clear()
    make(tmp_path).run()
    assert trainer.runs == [("l1_rmse", 0), ("l1", 1), ("l1_rmse", 1)]


def test_wall_time_is_the_sum_over_restarts(trainer, tmp_path):
    trainer.fails = {("l1", 0): Stopped("SIGTERM", "dgnet", 4)}
    with pytest.raises(Stopped):
        make(tmp_path, ["l1"], [0]).run()
    file = tmp_path / "study" / "runs" / "l1" / "seed_0" / "wall_time.json"
    assert json.loads(file.read_text())["wall_seconds"] < 60
    file.write_text('{"wall_seconds": 1000.0}')
    (row,) = make(tmp_path, ["l1"], [0]).run()
    assert 1000 <= row["wall_seconds"] < 1060


@pytest.mark.parametrize("content", ["null", '{"wall_seconds": "3"}', '{"wall_seconds": 1e400}'])
def test_a_damaged_wall_time_is_named_and_counted_anew(tmp_path, caplog, content):
    (tmp_path / "wall_time.json").write_text(content)
    assert WallTime(tmp_path).seconds < 1
    assert "wall_time.json: " in caplog.text


def test_another_configuration_is_refused_with_the_fields_named(trainer, tmp_path):
    make(tmp_path).run()
    fields = {"total_steps": 9, "evaluation.fid_dims": 64, "log.every_steps": 3}
    with pytest.raises(InputError) as caught:
        make(tmp_path, fields=fields).run()
    assert set(str(caught.value).splitlines()[1:-1]) == {
        "  total_steps: 8 there, 9 now",
        "  evaluation.fid_dims: 2048 there, 64 now",
    }
    with pytest.raises(InputError, match=r"losses\.heavy: l1\+2\*mse there, l1\+3\*mse now"):
        make(tmp_path, {"heavy": "l1+2*mse"}, [0]).run()
        make(tmp_path, {"heavy": "l1+3*mse"}, [0]).run()


def test_a_changed_run_of_the_study_is_refused_with_the_field_named(trainer, tmp_path):
    make(tmp_path).run()
    file = tmp_path / "study" / "runs" / "l1" / "seed_0" / "config.json"
    file.write_text(file.read_text().replace('"batch_size": 8', '"batch_size": 4', 1))
    with pytest.raises(
        InputError, match=r"seed_0 holds a run of another(?s:.*)batch_size: 4 there"
    ):
        make(tmp_path).run()


def test_shards_do_their_parts_and_each_sees_what_is_over(trainer, tmp_path):
    first = make(tmp_path, shard=(0, 2))
    assert len(first.run()) == 2
    assert "Not over yet: l1_rmse seed 0, l1_rmse seed 1." in first.text()
    assert len(make(tmp_path, shard=(1, 2)).run()) == 4
    assert sorted(trainer.runs) == [("l1", 0), ("l1", 1), ("l1_rmse", 0), ("l1_rmse", 1)]
    assert "Not over" not in first.text()
    assert [row["n"] for row in first.table()] == [2, 2]
    assert Study.load(tmp_path / "study").table() == first.table()


def test_a_run_that_another_process_is_training_is_left_to_it(trainer, tmp_path):
    trainer.fails = {("l1", 0): InUseError("another process is training in it")}
    rows = make(tmp_path).run()
    assert [(row["loss"], row["seed"]) for row in rows] == [
        *[("l1", 1), ("l1_rmse", 0), ("l1_rmse", 1)]
    ]


def test_a_run_that_another_process_has_measured_meanwhile_is_not_measured_again(
    trainer, tmp_path, monkeypatch
):
    theirs = make(tmp_path / "theirs", ["l1"], [0]).run()[0] | {"rank1": 0.75}
    trainer.measured.clear()
    train = trainer.train

    def train_slowly(config: Any, workdir: Path, **more: Any) -> dict[str, float]:
        metrics = train(config, workdir, **more)
        write_result(workdir, theirs)
        return metrics

    monkeypatch.setattr(trainer, "train", train_slowly)
    (row,) = make(tmp_path, ["l1"], [0]).run()
    assert row["rank1"] == 0.75
    assert trainer.measured == []


def test_what_cannot_be_measured_is_refused_before_the_first_run(trainer, tmp_path, monkeypatch):
    def fail(*arguments: Any, cache: Path) -> None:
        raise InputError("--config.inception: no such file")

    monkeypatch.setattr(runner, "real_images", fail)
    with pytest.raises(InputError, match="--config.inception"):
        make(tmp_path).run()
    assert trainer.runs == []
    assert not (tmp_path / "study").exists()


def test_runs_without_fid_are_measured_once_there_is_an_inception(trainer, tmp_path):
    make(tmp_path, ["l1"], [0]).run()
    fields = {"inception": "inception.safetensors"}
    (row,) = make(tmp_path, ["l1"], [0], fields=fields).run()
    assert row["fid_png"] == 100
    make(tmp_path, ["l1"], [0], fields=fields).run()
    make(tmp_path, ["l1"], [0]).run()
    assert len(trainer.runs) == 2


def test_a_loss_of_ones_own_is_run_by_its_name(trainer, tmp_path):
    def mine(target: Any, output: Any) -> Any:
        return abs(target - output).max()

    rows = make(tmp_path, {"mine": mine, "l1": "l1"}, [0]).run()
    assert [(row["loss"], row["expression"]) for row in rows] == [("l1", "l1"), ("mine", "custom")]
    folder = tmp_path / "study" / "runs" / "mine" / "seed_0"
    assert work_directory.load_config(folder).reconstruction_loss == "mine"
    # A process that does not know the function reads its results.
    losses.registry.DEFINITIONS.pop("mine")
    assert [row["loss"] for row in Study.load(tmp_path / "study").table()] == ["l1", "mine"]


def test_two_studies_may_call_different_functions_by_one_name(trainer, tmp_path, monkeypatch):
    ours, theirs = (
        (lambda target, output: (target - output).max()),
        losses.reconstruction_loss("l1"),
    )
    seen = []
    train = trainer.train

    def look(config: Any, workdir: Path, **more: Any) -> dict[str, float]:
        seen.append(losses.reconstruction_loss(config.reconstruction_loss))
        return train(config, workdir, **more)

    monkeypatch.setattr(trainer, "train", look)
    first = make(tmp_path / "a", {"mine": ours}, 0)
    second = make(tmp_path / "b", {"mine": theirs}, 0)
    first.run()
    second.run()
    x, y = jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])
    assert [float(function(x, y)) for function in seen] == [2.0, 1.0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_two_stages_stops_the_study_at_once(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=number.name) as caught, stopping_at_once():
        os.kill(os.getpid(), number)
        time.sleep(60)
    assert caught.value.signal_name == number.name
    assert signal.getsignal(number) is before


class LosesASignal:
    """Gets a signal while it is finalised, where Python forgets what a handler raises."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # a handler runs between two instructions
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("stage", ["teacher", "training", "measuring"])
def test_a_signal_whose_exception_is_lost_stops_the_study_all_the_same(
    trainer, tmp_path, monkeypatch, stage
):
    """...after the stage that it came in; the study then goes on with the rest."""
    where = {
        "teacher": (runner.Runner, "_teacher"),
        "training": (trainer, "train"),
        "measuring": (runner, "measure"),
    }[stage]
    plain = getattr(*where)

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        LosesASignal()
        return plain(*arguments, **keywords)

    monkeypatch.setattr(*where, interrupted)
    with pytest.raises(Stopped, match="SIGTERM"):
        make(tmp_path).run()
    counts = {"teacher": (0, 0), "training": (1, 0), "measuring": (1, 1)}
    assert (len(trainer.runs), len(trainer.measured)) == counts[stage]
    monkeypatch.setattr(*where, plain)
    assert len(make(tmp_path).run()) == 4


def test_what_trains_no_dgnet_is_refused(tmp_path):
    for fields, message in (
        ({"baseline": True}, "not the re-ID baseline"),
        ({"data.generated": "set"}, "not the re-ID baseline"),
        ({"released": "a.safetensors"}, r"--config\.released"),
    ):
        with pytest.raises(InputError, match=message):
            make(tmp_path, fields=fields)
    with pytest.raises(InputError, match=r"no study in it \(no study\.json\)"):
        Study.load(tmp_path)


@pytest.mark.parametrize("shard", [(2, 2), (0, 0), (-1, 2)])
def test_a_shard_that_is_not_there_is_refused(tmp_path, shard):
    with pytest.raises(InputError, match=f"--shard={shard[0]}/{shard[1]}: "):
        make(tmp_path, shard=shard)


def test_a_file_in_the_place_of_the_folder_is_refused(trainer, tmp_path):
    (tmp_path / "study").write_text("")
    with pytest.raises(InputError, match=r"--workdir=.*study: cannot be written to"):
        make(tmp_path).run()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("{}", "losses: Field required"),
        ("[]", r"valid dictionary, found \[\]"),
        ("{", "not valid JSON"),
        ('{"a":' * 900 + "1" + "}" * 900, "too deeply nested"),
        ({"losses": {"../../a": "l1"}}, r"the label '\.\./\.\./a'"),
        ({"losses": {"l1": None}}, r"losses\.l1: .* found None"),
        ({"losses": ["l1"]}, "losses: .*valid dictionary"),
        ({"seeds": []}, "seeds: .*at least 1 item"),
        ({"seeds": [-1]}, r"seeds\.0: .*found -1"),
        ({"seeds": ["0"]}, r"seeds\.0: .*found '0'"),
        ({"config": 3}, "config: .*found 3"),
    ],
)
def test_a_study_json_of_something_else_is_named(trainer, tmp_path, change, found):
    study = make(tmp_path, ["l1"], [0])
    study.run()
    file = tmp_path / "study" / "study.json"
    plan = json.loads(file.read_text())
    file.write_text(change if isinstance(change, str) else json.dumps(plan | change))
    for entrance in (study.run, lambda: Study.load(tmp_path / "study")):
        with pytest.raises(
            InputError, match=rf"study\.json: .*{found}.* Restore it, or use another"
        ):
            entrance()


@pytest.mark.parametrize(
    ("change", "found"),
    [({"data": 3}, "--config.data: found a value"), ({"a.b": 1}, "a.b"), ({"seed": "x"}, "'x'")],
)
def test_a_configuration_in_study_json_that_is_none_is_named(trainer, tmp_path, change, found):
    make(tmp_path, ["l1"], [0]).run()
    file = tmp_path / "study" / "study.json"
    plan = json.loads(file.read_text())
    plan["config"] |= change
    file.write_text(json.dumps(plan))
    with pytest.raises(InputError, match=rf"(?s)study\.json: .*{found}"):
        Study.load(tmp_path / "study")


def test_a_damaged_result_is_left_out_and_named_and_stops_a_new_start(trainer, tmp_path, caplog):
    study = make(tmp_path, ["l1"], [0, 1])
    study.run()
    file = tmp_path / "study" / "runs" / "l1" / "seed_0" / "result.json"
    file.write_text(file.read_text()[:40])
    loaded = Study.load(tmp_path / "study")
    assert [row["seed"] for row in loaded.save_results()] == [1]
    assert f"{file}: not valid JSON" in caplog.text
    assert f"Left out: {file}: not valid JSON" in loaded.text()
    assert loaded.missing() == [("l1", 0)]
    with pytest.raises(InputError, match=r"seed_0/result\.json: .* Delete it"):
        study.run()
    file.unlink()
    trainer.runs.clear()
    assert len(study.run()) == 2 and trainer.runs == [("l1", 0)]


def test_the_time_left_is_that_of_the_steps_left_at_the_mean_speed(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    stream = io.StringIO()
    progress = StudyProgress(4, 100, finished=1, stream=stream)
    assert progress.seconds_left is None
    progress.begin("l1", 0)
    progress.step(60)  # goes on from a checkpoint
    clock.now = 20.0
    progress.step(100)
    # 40 steps took 20 s; 200 are left.
    assert progress.seconds_left == pytest.approx(100)
    progress.end()
    progress.begin("huber", 0)
    progress.step(0)
    clock.now = 30.0
    progress.step(10)
    progress.end()  # diverged: its other 90 steps are not to come
    assert progress.seconds_left == pytest.approx(100 * 30 / 50)
    progress.begin("cos", 0)
    assert stream.getvalue().splitlines()[-1] == (
        "study: run 4 of 4 (cos, seed 0) | 75% of all steps | left 01:00"
    )


def test_a_study_in_which_every_term_has_a_loss_of_its_own_is_refused(tmp_path):
    """All runs would be the same; the appearance codes' term trains nothing with the cut."""
    config = tiny_config()
    config.reconstruction.images = config.reconstruction.structure_code = "l1"
    Study(config, ["l1", "mse"], workdir=tmp_path)
    config.reconstruction.cycle = "l1"
    with pytest.raises(InputError, match="structure_code, cycle have losses of their own"):
        Study(config, ["l1", "mse"], workdir=tmp_path)
    config.appearance.cut_gradient = False
    Study(config, ["l1", "mse"], workdir=tmp_path)
