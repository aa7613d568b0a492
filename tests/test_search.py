"""What a search does with its trials; the runs themselves are stood in for."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import tiny_config

from dgnet_jax.ablation import runner
from dgnet_jax.ablation.__main__ import main as report
from dgnet_jax.ablation.points import choose_losses
from dgnet_jax.ablation.search import search as module
from dgnet_jax.ablation.search.outcome import read_outcome
from dgnet_jax.ablation.search.search import Search
from dgnet_jax.ablation.study import Study
from dgnet_jax.errors import DivergedError, InputError
from dgnet_jax.losses import LOSSES, parse
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.preemption import Stopped
from dgnet_jax.runtime.workdir import InUseError
from dgnet_jax.training.trainer import RESUMABLE

pytest.importorskip("optuna", reason="the extra [search] is not installed")
TERMS = ("l1", "rmse", "0.1:4*cos")
THESIS = [point.label for point in choose_losses("all")]
STEPS = 8


def quality(expression: str) -> float:
    """What a stand-in's mAP is: l1 is good, others are not."""
    weights = {term.name: term.weight for term in parse(expression).terms}
    return weights.get("l1", 0.0) / (1 + sum(weights.values()))


class Trainer:
    """Stands for `trainer`: evaluates every 2 of 8 steps, fails where it is told to.

    Attributes:
        runs: (expression, seed, first step) of each start.
        fails: exceptions by (expression, seed) or number of the start, raised at step 4.
    """

    def __init__(self) -> None:
        self.checked: list[str] = []
        self.runs: list[tuple[str, int, int]] = []
        self.measured: list[tuple[str, int]] = []
        self.fails: dict[Any, BaseException] = {}

    def check_run(self, config: Any, session: Any, *, saved: int | None) -> None:
        self.checked.append(config.reconstruction_loss)

    def train(
        self, config: Any, workdir: Path, *, session: Any, progress: Any, evaluated: Any
    ) -> dict[str, float]:
        work_directory.unlock(work_directory.prepare(workdir, config, RESUMABLE))
        state = workdir / "step.txt"
        first = int(state.read_text()) if state.is_file() else 0
        run = (str(parse(config.reconstruction_loss)), config.seed)
        number = len(self.runs)
        self.runs.append((*run, first))
        progress(first)
        for step in range(first, config.total_steps):
            if step == 4:
                for key in (run, number):
                    if key in self.fails:
                        raise self.fails.pop(key)
            state.write_text(str(step + 1))
            progress(step + 1)
            if (step + 1) % 2 == 0:
                evaluated(step + 1, {"mAP": quality(run[0]) * (step + 1) / STEPS, "queries": 6})
        return {"mAP": quality(run[0])}


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(runner, "trainer", trainer)
    session = SimpleNamespace(data=SimpleNamespace(train_images=None), teacher=None)
    monkeypatch.setattr(runner, "Session", lambda config, together: session)
    monkeypatch.setattr(runner.Runner, "_teacher", lambda self, session: None)
    monkeypatch.setattr(runner, "real_images", lambda *arguments, cache: None)

    def measure(config: Any, folder: Path, data: Any, metrics: Any, real: Any) -> dict[str, Any]:
        trainer.measured.append((config.reconstruction_loss, config.seed))
        frechet = len(parse(config.reconstruction_loss).terms) + config.seed / 2
        return {"mAP": metrics["mAP"], "teacher_frechet": frechet, "generated": 9, "real": 9}

    monkeypatch.setattr(runner, "measure", measure)
    monkeypatch.setattr(module, "drawn_settings", lambda root: None)
    return trainer


def make(tmp_path: Path, trials: int = 14, terms: Any = TERMS, **more: Any) -> Search:
    objectives = more.pop("objectives", ("teacher_frechet", "mAP"))
    config = tiny_config({"evaluation.every_steps": 2, **more.pop("fields", {})})
    return Search(config, terms, objectives, workdir=tmp_path / "search", trials=trials, **more)


def outcomes(tmp_path: Path) -> dict[str, str]:
    return {one.label: one.outcome for one in read_outcome(tmp_path / "search").trials}


def results(tmp_path: Path) -> dict[str, dict[str, Any]]:
    files = (tmp_path / "search").glob("runs/*/seed_*/result.json")
    rows = [json.loads(file.read_text()) for file in files]
    return {f"{row['loss']} {row['seed']}": row for row in rows}


def test_the_thesis_is_run_first_then_what_is_suggested(trainer, tmp_path):
    search = make(tmp_path, trials=14)
    search.run()
    assert trainer.checked == ["0.05*l1+0.1*cos+0.05*rmse"]
    expressions = [run[0] for run in trainer.runs]
    assert expressions[:12] == [point.expression for point in choose_losses("all")]
    assert list(outcomes(tmp_path)) == [*THESIS, "trial_012", "trial_013"]
    rows = results(tmp_path)
    assert rows["l1_rmse 0"]["expression"] == "l1+rmse"
    assert rows["trial_012 0"]["expression"] == expressions[12]
    config = work_directory.load_config(tmp_path / "search" / "runs" / "l1_rmse" / "seed_0")
    assert config.reconstruction_loss == "l1_rmse"
    assert config.teacher.checkpoint == str(tmp_path / "search" / "teacher")


def test_all_trials_share_one_form(trainer, tmp_path, monkeypatch):
    """...of the terms and the thesis's losses, which decides the compiled program."""
    made: list[Any] = []
    session = runner.Session(None, None)
    monkeypatch.setattr(
        runner, "Session", lambda config, together: made.append(together) or session
    )
    make(tmp_path, trials=20, terms=["0.5:1*l1", "huber(delta=0.1:2)", "log_cosh"]).run()
    (together,) = made
    forms = {parse(run[0]).padded(together).form for run in trainer.runs}
    assert len(trainer.runs) == 20 and len(forms) == 1
    assert [part.name for part in forms.pop()] == [*LOSSES, "log_cosh"]


def test_objectives_are_told_in_the_units_of_results_and_the_front_is_what_none_dominates(
    trainer, tmp_path
):
    search = make(tmp_path)
    search.run()
    rows, outcome = results(tmp_path), read_outcome(tmp_path / "search")
    for trial in outcome.finished:
        row = rows[f"{trial.label} 0"]
        assert trial.values == (row["teacher_frechet"], row["mAP"])
    assert [metric.name for metric in outcome.definition.objectives] == ["teacher_frechet", "mAP"]
    # Of the thesis's points l1 has the least of the one and the most of the other.
    assert "l1" in {trial.label for trial in outcome.front}
    assert search.text().startswith("**The front**")
    assert "14 trials: " in search.text()


def test_the_folder_is_a_study_too(trainer, tmp_path):
    make(tmp_path).run()
    study = Study.load(tmp_path / "search")
    assert len(study.rows()) == 14
    assert study.missing() == []
    assert "\ntrial_012," in (tmp_path / "search" / "results.csv").read_text()
    assert "| l1+rmse " in study.text()
    plan = json.loads((tmp_path / "search" / "study.json").read_text())
    assert list(plan["losses"])[:12] == THESIS and plan["seeds"] == [0]


def test_the_command_of_studies_reports_a_search_too(trainer, tmp_path, capsys):
    make(tmp_path, trials=3).run()
    report([str(tmp_path / "search")])
    said = capsys.readouterr().out
    assert "**Single losses on market1501**" in said
    assert "**The front**" in said and "3 trials: 3 finished." in said
    assert (tmp_path / "search" / "report" / "search_front.png").is_file()


def test_what_is_worse_than_the_median_ends_at_its_evaluation(trainer, tmp_path, monkeypatch):
    """...but for the thesis's points, of which most are."""
    monkeypatch.setattr(module, "is_hopeless", lambda *arguments: arguments[0]["mAP"] < 9)
    make(tmp_path).run()
    found = outcomes(tmp_path)
    assert {found[label] for label in THESIS} == {"finished"}
    assert found["trial_012"] == found["trial_013"] == "pruned"
    row = results(tmp_path)["trial_012 0"]
    assert (row["status"], row["steps"], row["mAP"]) == ("pruned", 2, None)
    assert not [run for run in trainer.measured if run[0] not in THESIS]


def test_a_trial_is_compared_with_finished_ones_at_the_same_step(trainer, tmp_path, monkeypatch):
    seen = []

    def look(metrics: Any, others: Any, better: Any) -> bool:
        seen.append((metrics, others, better))
        return False

    monkeypatch.setattr(module, "is_hopeless", look)
    make(tmp_path, trials=13).run()
    thesis = [quality(point.expression) for point in choose_losses("all")]
    assert len(seen) == 3  # steps 2, 4 and 6; the last is measured in full
    for (_, others, better), step in zip(seen, (2, 4, 6), strict=True):
        assert [other["mAP"] for other in others] == [value * step / STEPS for value in thesis]
        assert better == {"teacher_frechet": -1, "mAP": 1}


def test_a_trial_that_diverges_has_no_values_and_the_search_goes_on(trainer, tmp_path):
    trainer.fails = {("mse", 0): DivergedError("the training diverged", 5, "identity", 4)}
    make(tmp_path, trials=13).run()
    found = outcomes(tmp_path)
    assert found["mse"] == "diverged" and found["trial_012"] != "running"
    assert results(tmp_path)["mse 0"]["diverged_step"] == 5
    runs = len(trainer.runs)
    make(tmp_path, trials=13).run()  # it would diverge again
    assert len(trainer.runs) == runs


@pytest.mark.parametrize("kind", [Stopped("SIGTERM", "dgnet", 4), KeyboardInterrupt(), OSError()])
def test_an_interrupted_search_goes_on_with_the_trial_and_the_step_that_it_was_in(
    trainer, tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(module, "is_hopeless", lambda *arguments: False)
    trainer.fails = {12: kind}
    with pytest.raises(type(kind)):
        make(tmp_path).run()
    assert outcomes(tmp_path)["trial_012"] == "running"
    lost = trainer.runs[12]
    before = trainer.runs[:12]
    trainer.runs.clear()
    make(tmp_path).run()
    assert trainer.runs[0] == (lost[0], 0, 4)
    assert len(trainer.runs) == 2
    assert {run[0] for run in trainer.runs}.isdisjoint(run[0] for run in before)
    assert outcomes(tmp_path)["trial_012"] in ("finished", "pruned")


@pytest.mark.parametrize("place", ["write_result", "measure", "save_plan", "finish"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_search_that_dies_around_any_write_runs_each_trial_once(
    trainer, tmp_path, monkeypatch, place, when
):
    class Dead(BaseException):
        pass

    owner = {
        "write_result": runner,
        "measure": runner,
        "save_plan": module,
        "finish": module.Journal,
    }[place]
    plain = getattr(owner, place)
    calls = []

    def die(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        found = plain(*arguments, **more) if when == "after" or len(calls) < 5 else None
        if len(calls) == 5:
            raise Dead
        return found

    monkeypatch.setattr(owner, place, die)
    with pytest.raises(Dead):
        make(tmp_path).run()
    monkeypatch.setattr(owner, place, plain)
    make(tmp_path).run()
    found = outcomes(tmp_path)
    assert len(found) == 14 and set(found.values()) <= {"finished", "pruned"}
    # Steps that were made are not made again, nor is a run that has its result measured again.
    assert len([run for run in trainer.runs if run[2] == 0]) == 14
    assert len(results(tmp_path)) == 14
    measured = len(trainer.measured) - sum(one == "finished" for one in found.values())
    assert measured == (1 if (place, when) in LOST_MEASURES else 0)


# What was measured and not written is measured again.
LOST_MEASURES = (("write_result", "before"), ("measure", "after"))


def test_more_trials_continue_a_search(trainer, tmp_path):
    make(tmp_path, trials=12).run()
    make(tmp_path, trials=14).run()
    assert len(trainer.runs) == 14
    make(tmp_path, trials=13).run()
    assert len(trainer.runs) == 14


def test_a_trial_of_several_seeds_has_their_means(trainer, tmp_path):
    make(tmp_path, trials=2, seeds=[0, 1]).run()
    assert [run[:2] for run in trainer.runs] == [
        *[("l1", 0), ("l1", 1)],
        *[("huber", 0), ("huber", 1)],
    ]
    (l1, _) = read_outcome(tmp_path / "search").finished
    assert l1.values == (1.25, 0.5)


def test_a_run_that_another_process_trains_is_left_to_it(trainer, tmp_path):
    trainer.fails = {("huber", 0): InUseError("another process is training in it")}
    make(tmp_path, trials=3).run()
    assert outcomes(tmp_path)["huber"] == "running"
    assert [run[0] for run in trainer.runs] == ["l1", "huber", "mse"]
    assert make(tmp_path, trials=3).is_under_way()
    make(tmp_path, trials=3).run()
    assert outcomes(tmp_path)["huber"] == "finished"


def test_results_of_a_study_in_the_folder_are_taken_over(trainer, tmp_path, monkeypatch):
    def train(config: Any, workdir: Path, **more: Any) -> dict[str, float]:
        return plain(config, workdir, **{"evaluated": lambda *arguments: None, **more})

    plain = trainer.train
    monkeypatch.setattr(trainer, "train", train)
    config = tiny_config({"evaluation.every_steps": 2})
    Study(config, ["l1", "huber"], [0], workdir=tmp_path / "search").run()
    make(tmp_path, trials=3).run()
    assert [run[0] for run in trainer.runs] == ["l1", "huber", "mse"]
    assert set(list(outcomes(tmp_path).values())[:3]) == {"finished"}


def test_another_search_or_configuration_is_refused_with_what_differs(trainer, tmp_path):
    make(tmp_path, trials=1).run()
    with pytest.raises(InputError, match=r"terms: 0\.05:5\*l1,.* there, 0\.05:5\*l1 now"):
        make(tmp_path, trials=1, terms=["l1"]).run()
    with pytest.raises(InputError, match=r"objectives: teacher_frechet,mAP there, mAP now"):
        make(tmp_path, trials=1, objectives=["mAP"]).run()
    with pytest.raises(InputError, match=r"seeds: 0 there, 0,1 now"):
        make(tmp_path, trials=1, seeds=[0, 1]).run()
    with pytest.raises(InputError, match="total_steps: 8 there, 9 now"):
        make(tmp_path, trials=1, fields={"total_steps": 9}).run()
    assert len(trainer.runs) == 1


def test_a_journal_that_is_not_that_of_the_runs_is_refused(trainer, tmp_path):
    """Else a trial would get the values of another sum, which had its label before."""
    make(tmp_path, trials=13).run()
    (tmp_path / "search" / "journal.log").unlink()
    with pytest.raises(InputError, match=r"losses\.trial_012: .* there, .* now"):
        make(tmp_path, trials=13, sampler="random").run()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"terms": []}, "--terms: none given"),
        ({"objectives": ["fid"]}, "--config.inception=FILE, or"),
        ({"trials": 0}, "--trials=0: give 1 or more"),
        ({"sampler": "grid"}, "--sampler=grid: give tpe or random"),
        ({"shard": (2, 2)}, "--shard=2/2"),
        ({"fields": {"baseline": True}}, "--mode=search trains DG-Net"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path, **more)
    assert not (tmp_path / "search").exists()


def test_the_truth_is_no_objective_of_photographs(trainer, tmp_path):
    with pytest.raises(InputError, match="truth_l1 compares with the truth"):
        make(tmp_path, objectives=["truth_l1", "mAP"]).run()
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    "content", ["[]", '{"terms": []}', '{"terms": ["x"], "objectives": ["mAP"], "seeds": [0]}']
)
def test_a_damaged_definition_is_named(trainer, tmp_path, content):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "search.json").write_text(content)
    with pytest.raises(InputError, match=r"search\.json"):
        make(tmp_path).run()
