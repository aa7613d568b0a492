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
from dgnet_jax.runtime.checkpoints import abstract_state
from dgnet_jax.runtime.preemption import Stopped
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
