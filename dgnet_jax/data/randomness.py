"""Random draws that do not depend on how a batch is spread over devices.

Under `jit` a program sees the whole batch and draws for it from one key. Under `pmap` it sees one
device's rows: it draws for the whole batch from the same key, which costs next to nothing, and
takes its rows of that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax


@dataclass(frozen=True)
class Share:
    """Which rows of a batch a program sees: the `index`-th of `count` equal parts.

    Attributes:
        index: int32 scalar, such as `lax.axis_index` gives; 0 if there is one part.
        count: parts.
    """

    index: jax.Array | int = 0
    count: int = 1

    def draw(
        self, sampler: Callable[[tuple[int, ...]], jax.Array], shape: tuple[int, ...]
    ) -> jax.Array:
        """These rows of `sampler(shape of the whole batch)`: an array of `shape`, rows first."""
        if self.count == 1:
            return sampler(shape)
        rows = shape[0]
        whole = sampler((self.count * rows, *shape[1:]))
        return lax.dynamic_slice_in_dim(whole, self.index * rows, rows)

    def randint(self, key: jax.Array, limits: jax.Array) -> jax.Array:
        """int32 numbers from 0 up to `limits` exclusive, an array of its shape, rows first."""

        def sampler(shape: tuple[int, ...]) -> jax.Array:
            above = limits
            if self.count > 1:  # what the other rows' limits are does not move these rows' draws
                above = lax.dynamic_update_slice_in_dim(
                    jnp.ones(shape, limits.dtype), limits, self.index * len(limits), 0
                )
            return jax.random.randint(key, shape, 0, above)

        return self.draw(sampler, limits.shape)


# A program that sees the whole batch.
WHOLE = Share()


def share_of(axis: str | None) -> Share:
    """This device's along a mapped axis; the whole batch without one."""
    return WHOLE if axis is None else Share(lax.axis_index(axis), lax.axis_size(axis))
