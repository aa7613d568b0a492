"""Pure forward functions of trained networks, from uint8 images and to uint8 images.

Everything runs on running statistics, so that an image's result does not depend on its batch.
`compiled` gives them as programs; `inference` runs them over any number of images.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from dgnet_jax.data.augment import preprocess, to_uint8
from dgnet_jax.models import Networks, Variables, apply
from dgnet_jax.models.embedding import Embeddings, embed_two_views
from dgnet_jax.models.reid import Teacher


class Forward(NamedTuple):
    """DG-Net's forward functions on images of any size, resized to height x width.

    An appearance code has parts * channels values; structure codes are a quarter as high and wide
    as the images.
    """

    networks: Networks
    height: int
    width: int

    def appearance_codes(
        self, appearance: Variables, images: UInt8[Array, "n rows columns 3"]
    ) -> Float[Array, "n code"]:
        """E_a, in float32 or wider."""
        images = preprocess(images, self.height, self.width)
        encoder = self.networks.appearance_encoder
        return apply(encoder, appearance, images, method="features").code

    def structure_codes(
        self, generator: Variables, images: UInt8[Array, "n rows columns 3"]
    ) -> Float[Array, "n h w channels"]:
        """E_s, in float32 or wider."""
        images = preprocess(images, self.height, self.width)
        variables = {"params": generator["structure_encoder"]}
        codes = apply(self.networks.structure_encoder, variables, images)
        return codes.astype(jnp.promote_types(codes.dtype, jnp.float32))

    def paint(
        self,
        generator: Variables,
        structure_codes: Float[Array, "n h w channels"],
        appearance_codes: Float[Array, "n code"],
    ) -> UInt8[Array, "n 4*h 4*w 3"]:
        """The decoder."""
        return to_uint8(self._decoded(generator, structure_codes, appearance_codes))

    def _decoded(
        self,
        generator: Variables,
        structure_codes: Float[Array, "n h w channels"],
        appearance_codes: Float[Array, "n code"],
    ) -> Float[Array, "n 4*h 4*w 3"]:
        variables = {"params": generator["decoder"]}
        return apply(self.networks.decoder, variables, structure_codes, appearance_codes)

    def repaint(
        self,
        generator: Variables,
        structure_images: UInt8[Array, "n rows columns 3"],
        appearance_codes: Float[Array, "n code"],
    ) -> UInt8[Array, "n {self.height} {self.width} 3"]:
        """The images' structures with the appearance codes."""
        return self.paint(
            generator, self.structure_codes(generator, structure_images), appearance_codes
        )

    def swap(
        self,
        generator: Variables,
        appearance: Variables,
        appearance_images: UInt8[Array, "n rows columns 3"],
        structure_images: UInt8[Array, "n structure_rows structure_columns 3"],
    ) -> UInt8[Array, "n {self.height} {self.width} 3"]:
        """Each appearance image's appearance on its structure image's structure."""
        codes = self.appearance_codes(appearance, appearance_images)
        return self.repaint(generator, structure_images, codes)

    def swap_in_both_ways(
        self,
        generator: Variables,
        appearance: Variables,
        appearance_images: UInt8[Array, "n rows columns 3"],
        structure_images: UInt8[Array, "n structure_rows structure_columns 3"],
    ) -> UInt8[Array, "n 2 {self.height} {self.width} 3"]:
        """`swap`, with levels rounded and with levels truncated."""
        codes = self.appearance_codes(appearance, appearance_images)
        images = self._decoded(generator, self.structure_codes(generator, structure_images), codes)
        return jnp.stack([to_uint8(images), to_uint8(images, truncate=True)], axis=1)

    def swap_all(
        self,
        generator: Variables,
        appearance: Variables,
        appearance_images: UInt8[Array, "n rows columns 3"],
        structure_images: UInt8[Array, "m structure_rows structure_columns 3"],
    ) -> UInt8[Array, "n m {self.height} {self.width} 3"]:
        """All swaps of n and m images; [i, j] = appearance i on structure j."""
        codes = self.appearance_codes(appearance, appearance_images)
        structures = self.structure_codes(generator, structure_images)
        n, m = len(codes), len(structures)
        painted = self.paint(
            generator, jnp.tile(structures, (n, 1, 1, 1)), jnp.repeat(codes, m, axis=0)
        )
        return painted.reshape(n, m, *painted.shape[1:])

    def embeddings(
        self, appearance: Variables, images: UInt8[Array, "n rows columns 3"]
    ) -> Embeddings:
        """E_a's (prime, fine), of unit norm, over the images and their mirrors."""

        def embed_view(view: UInt8[Array, "n rows columns 3"]) -> Embeddings:
            view = preprocess(view, self.height, self.width)
            _, prime, fine = apply(self.networks.appearance_encoder, appearance, view)
            return prime.embedding, fine.embedding

        return embed_two_views(embed_view, images)


class TeacherForward(NamedTuple):
    """The teacher's forward functions on images of any size, resized to height x width."""

    network: Teacher
    height: int
    width: int

    def embeddings(
        self, variables: Variables, images: UInt8[Array, "n rows columns 3"]
    ) -> Float[Array, "n dim"]:
        """Of unit norm, over the images and their mirrors, in float32 or wider."""

        def embed_view(view: UInt8[Array, "n rows columns 3"]) -> Embeddings:
            view = preprocess(view, self.height, self.width)
            embedding = apply(self.network, variables, view).embedding
            return embedding, embedding

        return embed_two_views(embed_view, images)[0]

    def soft_labels(
        self, variables: Variables, images: UInt8[Array, "n rows columns 3"]
    ) -> Float[Array, "n identities"]:
        """The mean of its softmaxes on an image and its mirror, in float32 or wider.

        The labels of style 0 of `training.objective.teacher_labels`, with running statistics.
        """
        images = preprocess(images, self.height, self.width)
        views = (images, images[:, :, ::-1])
        logits = [apply(self.network, variables, view).logits for view in views]
        return sum((jax.nn.softmax(view) for view in logits), jnp.zeros(())) / len(views)


@lru_cache(maxsize=64)
def compiled(forward: Forward | TeacherForward, name: str) -> Callable[..., Any]:
    """A forward function, by its name, compiled once a process for all models of one network."""
    return jax.jit(getattr(forward, name))
