"""Pure forward functions of trained networks, from uint8 images and to uint8 images.

Everything runs on running statistics, so that an image's result does not depend on its batch. Jit
the caller; `inference` runs them over any number of images.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dgnet_jax.data.augment import preprocess, to_uint8
from dgnet_jax.models import Networks, apply
from dgnet_jax.models.embedding import Embeddings, embed_two_views
from dgnet_jax.models.reid import Teacher

Variables = dict[str, Any]


class Forward(NamedTuple):
    """DG-Net's forward functions on images of any size, resized to height x width."""

    networks: Networks
    height: int
    width: int

    def appearance_codes(self, appearance: Variables, images: jax.Array) -> jax.Array:
        """E_a: (n, rows, columns, 3) uint8 to (n, parts * channels) float32."""
        images = preprocess(images, self.height, self.width)
        encoder = self.networks.appearance_encoder
        return apply(encoder, appearance, images, method="features").code

    def structure_codes(self, generator: Variables, images: jax.Array) -> jax.Array:
        """E_s: (n, rows, columns, 3) uint8 to (n, height / 4, width / 4, channels) float32."""
        images = preprocess(images, self.height, self.width)
        variables = {"params": generator["structure_encoder"]}
        codes = apply(self.networks.structure_encoder, variables, images)
        return codes.astype(jnp.promote_types(codes.dtype, jnp.float32))

    def paint(
        self, generator: Variables, structure_codes: jax.Array, appearance_codes: jax.Array
    ) -> jax.Array:
        """The decoder: n codes of each kind to (n, height, width, 3) uint8."""
        variables = {"params": generator["decoder"]}
        images = apply(self.networks.decoder, variables, structure_codes, appearance_codes)
        return to_uint8(images)

    def repaint(
        self, generator: Variables, structure_images: jax.Array, appearance_codes: jax.Array
    ) -> jax.Array:
        """n images' structures with n appearance codes: (n, height, width, 3) uint8."""
        return self.paint(
            generator, self.structure_codes(generator, structure_images), appearance_codes
        )

    def swap(
        self,
        generator: Variables,
        appearance: Variables,
        appearance_images: jax.Array,
        structure_images: jax.Array,
    ) -> jax.Array:
        """n images' appearances on n images' structures: (n, height, width, 3) uint8."""
        codes = self.appearance_codes(appearance, appearance_images)
        return self.repaint(generator, structure_images, codes)

    def swap_all(self, generator: Variables, appearance: Variables, images: jax.Array) -> jax.Array:
        """All swaps of n images: (n, n, height, width, 3) uint8; [i, j] = appearance i."""
        codes = self.appearance_codes(appearance, images)
        structures = self.structure_codes(generator, images)
        count = len(images)
        painted = self.paint(
            generator,
            jnp.tile(structures, (count, 1, 1, 1)),
            jnp.repeat(codes, count, axis=0),
        )
        return painted.reshape(count, count, *painted.shape[1:])

    def embeddings(self, appearance: Variables, images: jax.Array) -> Embeddings:
        """E_a's (prime, fine), each (n, dim), of unit norm, over the images and their mirrors."""

        def embed_view(view: jax.Array) -> Embeddings:
            view = preprocess(view, self.height, self.width)
            _, prime, fine = apply(self.networks.appearance_encoder, appearance, view)
            return prime.embedding, fine.embedding

        return embed_two_views(embed_view, images)


class TeacherForward(NamedTuple):
    """The teacher's forward functions on images of any size, resized to height x width."""

    network: Teacher
    height: int
    width: int

    def embeddings(self, variables: Variables, images: jax.Array) -> jax.Array:
        """(n, dim) float32, of unit norm, over the images and their mirrors."""

        def embed_view(view: jax.Array) -> Embeddings:
            view = preprocess(view, self.height, self.width)
            embedding = apply(self.network, variables, view).embedding
            return embedding, embedding

        return embed_two_views(embed_view, images)[0]

    def soft_labels(self, variables: Variables, images: jax.Array) -> jax.Array:
        """(n, identities) float32: the mean of its softmaxes on an image and its mirror.

        The labels of style 0 of `objective.teacher_labels`, with running statistics.
        """
        images = preprocess(images, self.height, self.width)
        views = (images, images[:, :, ::-1])
        logits = [apply(self.network, variables, view).logits for view in views]
        return sum((jax.nn.softmax(view) for view in logits), jnp.zeros(())) / len(views)
