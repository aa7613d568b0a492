"""Learning rates and ramped loss weights as functions of the step alone.

docs/method.md, sections 5.1 and 5.3.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections

_LAST_STEP = 2**31 - 1


def ramp(step: jax.Array | int, maximum: float, start: int, scale: float) -> jax.Array:
    """min(maximum, scale * (step - start)) after `start`, else 0; `step` counts from 0."""
    value = jnp.minimum(maximum, scale * (jnp.asarray(step) - start))
    return jnp.where(jnp.asarray(step) > start, value, 0.0)


def ramped_weight(step: jax.Array | int, maximum: float, start: int, scale: float) -> jax.Array:
    """A term's weight: its ramp, but 0 until the ramp of the step before was positive."""
    previous = ramp(jnp.asarray(step) - 1, maximum, start, scale)
    return jnp.where(previous > 0, ramp(step, maximum, start, scale), 0.0)


def ramp_start(settings: ml_collections.ConfigDict, term: str) -> int:
    """The step after which the ramp of a term begins; at most what the step counter can reach.

    Args:
        settings: `config.ramp`.
        term: "structure_code", "appearance_code", "cycle" or "teacher".
    """
    delay = settings.teacher_delay if term == "teacher" else 0
    return min(settings.start + delay, _LAST_STEP)


def rising_weight(
    step: jax.Array | int, maximum: float, start: int, steps: int
) -> jax.Array | float:
    """`maximum` from step 0 on; with `steps`, 0 up to `start`, then linear, full `steps` later.

    Not of the paper nor of the released program, which have the whole weight from the start.
    """
    if not steps:
        return maximum
    return maximum * jnp.clip((jnp.asarray(step) - start) / steps, 0.0, 1.0)


def first_active_step(maximum: float, start: int, scale: float) -> int | None:
    """The first step (from 0) at which `ramped_weight` is positive; None if it never is."""
    return max(start + 2, 0) if maximum > 0 and scale > 0 else None


def step_decay(
    rate: float, milestones: Sequence[int], decay: float, warmup_steps: int = 0
) -> Callable[[jax.Array | int], jax.Array]:
    """Learning rate of step t (from 0): `rate`, times `decay` for every milestone <= t + 1.

    With `warmup_steps` it rises linearly from rate / warmup_steps in that many steps.
    """

    def schedule(step: jax.Array | int) -> jax.Array:
        count = jnp.asarray(step) + 1
        passed = sum((count >= milestone) for milestone in milestones)
        value = rate * decay ** jnp.asarray(passed, jnp.result_type(float))
        if warmup_steps:
            value = value * jnp.minimum(1.0, count / warmup_steps)
        return value

    return schedule
