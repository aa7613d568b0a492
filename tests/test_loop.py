"""The loop of a stage, with a stand-in for its step."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from tiny import tiny_config

from dgnet_jax.errors import DivergedError, InputError
from dgnet_jax.runtime.checkpoints import Checkpoints, abstract_state
from dgnet_jax.runtime.preemption import Stopped
from dgnet_jax.runtime.workdir import stage_directory
from dgnet_jax.training import loop
from dgnet_jax.training.loop import Stage, run_stage


def initial() -> dict[str, Any]:
    return {"step": jnp.int32(0), "weight": jnp.ones(3).sum()}


def stage(diverges_at: int, seen: list[int]) -> Stage:
    """Five steps of finite losses; the state is not finite after the given one."""

    def step(number: int, state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        done = state["step"] + 1
        weight = jnp.where(done == diverges_at, jnp.nan, state["weight"])
        return {"step": done, "weight": weight}, {"loss": jnp.float32(1)}

    def evaluate(state: Any) -> dict[str, float]:
        seen.append(int(state["step"]))
        if not jnp.isfinite(state["weight"]):
            raise InputError("rows hold NaN")
        return {"mAP": 0.5}

    return Stage(
        name="stage",
        total_steps=5,
        images_per_step=1,
        abstract=abstract_state(initial()),
        initial=initial,
        step=step,
        batch=lambda step: step,
        evaluate=evaluate,
        draw=None,
        inactive=lambda step: {},
        shown=("loss",),
        evaluate_every=1,
    )


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("diverges_at", [3, 5])
def test_a_state_that_is_not_finite_is_refused_before_it_is_ranked(
    tmp_path: Path, monkeypatch, diverges_at: int, backend: str
):
    """By what reads the host's arrays, and by what is compiled for an accelerator."""
    monkeypatch.setattr(loop.jax, "default_backend", lambda: backend)
    seen: list[int] = []
    with pytest.raises(DivergedError, match=f"step {diverges_at}: a parameter") as caught:
        run_stage(stage(diverges_at, seen), tmp_path, tiny_config())
    assert seen == list(range(diverges_at))
    assert caught.value.checkpoint == diverges_at - 1


def test_without_evaluations_the_first_and_the_last_state_are_measured_once(tmp_path: Path):
    seen: list[int] = []

    def measure(state: Any) -> dict[str, float]:
        return {"appearance_transfer": float(state["step"])}

    silent = stage(0, seen)._replace(evaluate_every=-1, measure=measure)
    for _ in range(2):
        _, metrics = run_stage(silent, tmp_path, tiny_config())
        assert metrics == {"appearance_transfer": 5}
    assert seen == []
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [
        (row["step"], row["appearance_transfer"]) for row in rows if row["kind"] == "evaluation"
    ] == [(0, 0), (5, 5)]


def interrupted_at(done: int) -> Stage:
    """A stage that gets a SIGTERM while it makes this step."""
    plain = stage(0, [])

    def step(number: int, state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        if state["step"] + 1 == done:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain.step(number, state, batch)

    return plain._replace(step=step)


def test_a_stop_at_the_last_step_ends_the_run_if_another_stage_follows(tmp_path: Path):
    with pytest.raises(Stopped, match="SIGTERM: stopped and saved at step 5 of the stage stage"):
        run_stage(interrupted_at(5)._replace(followed=True), tmp_path, tiny_config())
    # Evaluated and saved, so that the next start has nothing of it to do.
    seen: list[int] = []
    state, metrics = run_stage(stage(0, seen), tmp_path, tiny_config())
    assert (int(state["step"]), metrics, seen) == (5, {"mAP": 0.5}, [])


def logged(workdir: Path) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(row["kind"], row["step"]) for row in rows]


def test_a_stopped_run_logs_the_rows_of_one_that_was_not(tmp_path: Path):
    config = tiny_config()
    config.log.every_steps = 2
    expected = None
    for folder, stops in (("whole", ()), ("stopped", (2, 3, 4))):
        for done in stops:
            with pytest.raises(Stopped):
                run_stage(interrupted_at(done), tmp_path / folder, config)
        run_stage(stage(0, []), tmp_path / folder, config)
        found = sorted(logged(tmp_path / folder))
        expected = expected or found
        assert found == expected
    assert [step for kind, step in expected if kind == "train"] == [1, 2, 4, 5]


def test_what_a_stop_left_without_evaluation_can_still_be_the_best(tmp_path: Path):
    def evaluate(state: Any) -> dict[str, float]:
        return {"mAP": 0.9 if state["step"] == 2 else 0.1}

    with pytest.raises(Stopped, match="saved at step 2"):
        run_stage(interrupted_at(2)._replace(evaluate=evaluate), tmp_path, tiny_config())
    run_stage(stage(0, [])._replace(evaluate=evaluate), tmp_path, tiny_config())
    with Checkpoints(stage_directory(tmp_path, "stage"), read_only=True) as checkpoints:
        assert checkpoints.best_step() == 2
        assert checkpoints.metrics(2) == {"mAP": 0.9}
    assert logged(tmp_path).count(("evaluation", 2)) == 1


def test_an_evaluation_that_a_kill_kept_from_its_checkpoint_is_made_again_and_logged_once(
    tmp_path: Path,
):
    with pytest.raises(Stopped):
        run_stage(interrupted_at(2), tmp_path, tiny_config())
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"kind": "evaluation", "stage": "stage", "step": 2, "mAP": 0.5}\n')
    seen: list[int] = []
    run_stage(stage(0, seen), tmp_path, tiny_config())
    assert seen == [2, 3, 4, 5]
    assert logged(tmp_path).count(("evaluation", 2)) == 1


def test_a_stop_at_the_last_step_of_all_is_the_end(tmp_path: Path):
    state, metrics = run_stage(interrupted_at(5), tmp_path, tiny_config())
    assert (int(state["step"]), metrics) == (5, {"mAP": 0.5})


def test_a_run_that_goes_on_restores_its_state_without_making_a_first_one(tmp_path: Path):
    run_stage(stage(0, [])._replace(total_steps=2), tmp_path, tiny_config())

    def moved_away() -> Any:
        raise FileNotFoundError("pretrained weights of another day")

    seen: list[int] = []
    state, _ = run_stage(stage(0, seen)._replace(initial=moved_away), tmp_path, tiny_config())
    assert (int(state["step"]), seen) == (5, [3, 4, 5])


def test_every_evaluation_is_handed_on_with_its_step(tmp_path: Path):
    handed: list[tuple[int, dict[str, float]]] = []

    def hand(done: int, metrics: dict[str, float]) -> None:
        handed.append((done, metrics))

    run_stage(stage(0, [])._replace(evaluated=hand, evaluate_every=2), tmp_path, tiny_config())
    assert handed == [(done, {"mAP": 0.5}) for done in (0, 2, 4, 5)]


def test_a_run_that_an_evaluation_ends_can_be_continued_from_there(tmp_path: Path):
    class Enough(Exception):
        pass

    handed: list[int] = []

    def end(done: int, metrics: dict[str, float]) -> None:
        handed.append(done)
        if done == 2:
            raise Enough

    ending = stage(0, [])._replace(evaluated=end)
    for _ in range(2):  # the second start ends where the first did, before another step
        with pytest.raises(Enough):
            run_stage(ending, tmp_path, tiny_config())
    assert handed == [0, 1, 2, 2]
    with Checkpoints(stage_directory(tmp_path, "stage"), read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 2
        assert checkpoints.metrics(2) == {"mAP": 0.5}
    seen: list[int] = []
    state, _ = run_stage(stage(0, seen), tmp_path, tiny_config())
    assert (int(state["step"]), seen) == (5, [3, 4, 5])
