"""ResNet backbones whose batch norm keeps several batches of one pass apart."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from dgnet_jax.models.blocks import NORM_EPSILON, Conv, moments, statistics_dtype

BATCH_NORM_MOMENTUM = 0.1

# torchvision's initialisation of a ResNet that starts from scratch.
_kaiming_fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class GroupedBatchNorm(nn.Module):
    """Batch norm in which each group of the batch has statistics of its own.

    The leading axis holds batch * groups items, the group index running fastest, so that a
    batch sharded over devices stays sharded. A training step sends x_a, x_b, ... through the
    convolutions together and still normalises each separately.

    Running averages move by 0.1 towards each group's mean and *unbiased* variance, in the order
    of the groups; they move only where the collection `batch_stats` is mutable.
    """

    use_running_average: bool
    groups: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "items *places channels"]
    ) -> Float[Array, "items *places channels"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean_average = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        variance_average = self.variable("batch_stats", "var", jnp.ones, (channels,))
        wide = x.astype(statistics_dtype(x))
        if self.use_running_average:
            factor = scale * lax.rsqrt(variance_average.value + NORM_EPSILON)
            return ((wide - mean_average.value) * factor + bias).astype(x.dtype)

        grouped = wide.reshape(-1, self.groups, *x.shape[1:])
        axes = (0, *range(2, grouped.ndim - 1))
        count = grouped.size // (self.groups * channels)
        if count < 2:
            raise ValueError(
                f"batch norm {self.name} has {count} value a channel; a batch needs 2 or more"
            )
        mean, variance = moments(grouped, axes, jnp.asarray(mean_average.value, grouped.dtype))
        if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
            unbiased = variance * (count / (count - 1))
            for average, values in ((mean_average, mean), (variance_average, unbiased)):
                for value in values.reshape(self.groups, channels):
                    average.value = average.value + BATCH_NORM_MOMENTUM * (value - average.value)
        factor = scale * lax.rsqrt(variance + NORM_EPSILON)
        return ((grouped - mean) * factor + bias).reshape(x.shape).astype(x.dtype)


def max_pool(
    x: Float[Array, "batch h w c"],
) -> Float[Array, "batch (h+1)//2 (w+1)//2 c"]:
    """3x3 max pooling, stride 2, padding 1: torchvision's stem.

    Written as maxima of slices, whose gradient is much faster on a CPU than reduce_window's; and by
    selection, since the gradient of jnp.maximum compares with the result, and is lost where XLA
    computes that twice, rounded differently.
    """

    def larger(first: Array, second: Array) -> Array:
        return jnp.where(first >= second, first, second)

    for axis in (1, 2):
        outputs = (x.shape[axis] - 1) // 2 + 1
        pad = [(0, 0)] * x.ndim
        pad[axis] = (1, 1)
        padded = jnp.pad(x, pad, constant_values=-jnp.inf)
        first, second, third = (
            lax.slice_in_dim(padded, offset, offset + 2 * outputs - 1, 2, axis)
            for offset in range(3)
        )
        x = larger(larger(first, second), third)
    return x


class ResNetBlock(nn.Module):
    """A residual block, bottleneck (1x1, 3x3, 1x1; four times as wide at its end) or basic."""

    width: int
    stride: int
    bottleneck: bool
    use_running_average: bool
    groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "items h w c"]) -> Float[Array, "items out_h out_w out_c"]:
        def conv(name: str, x: Array, features: int, size: int, stride: int = 1) -> Array:
            layer = Conv(
                features,
                size,
                stride,
                padding=size // 2,
                reflect=False,
                use_bias=False,
                kernel_init=_kaiming_fan_out,
                dtype=self.dtype,
                name=name,
            )
            return layer(x)

        def norm(name: str, x: Array) -> Array:
            return GroupedBatchNorm(self.use_running_average, self.groups, name=name)(x)

        if self.bottleneck:
            features = 4 * self.width
            y = nn.relu(norm("bn1", conv("conv1", x, self.width, 1)))
            y = nn.relu(norm("bn2", conv("conv2", y, self.width, 3, self.stride)))
            y = norm("bn3", conv("conv3", y, features, 1))
        else:
            features = self.width
            y = nn.relu(norm("bn1", conv("conv1", x, features, 3, self.stride)))
            y = norm("bn2", conv("conv2", y, features, 3))
        if self.stride > 1 or x.shape[-1] != features:
            x = norm("downsample_bn", conv("downsample_conv", x, features, 1, self.stride))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """torchvision's ResNet without its last pooling and classifier.

    Attributes:
        stage_sizes: blocks in each stage (3, 4, 6, 3 for ResNet-50).
        stage_widths: width of each stage (64, 128, 256, 512).
        bottleneck: bottleneck blocks (ResNet-50) or basic ones (ResNet-18).
        last_stride: stride of the last stage: 2 (torchvision) or 1 (re-ID).
        stem: "resnet" is 7x7 stride 2 and a 3x3 max pooling of stride 2; "strided" is one 7x7
            convolution of stride 4, for small networks on a CPU.
    """

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    stage_widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = True
    last_stride: int = 2
    stem: Literal["resnet", "strided"] = "resnet"
    dtype: DTypeLike = jnp.float32

    @property
    def features(self) -> int:
        """Channels of the last feature map."""
        return self.stage_widths[-1] * (4 if self.bottleneck else 1)

    def __call__(
        self,
        images: Float[Array, "items height width 3"],
        groups: int = 1,
        use_running_average: bool = True,
    ) -> Float[Array, "items h w {self.features}"]:
        """The last feature map; arguments as of `stages`."""
        return self.stages(images, groups, use_running_average)[-1]

    @nn.compact
    def stages(
        self,
        images: Float[Array, "items height width 3"],
        groups: int = 1,
        use_running_average: bool = True,
    ) -> list[Float[Array, "items _h _w _channels"]]:
        """The feature map after each stage.

        With `use_running_average` false each of the `groups` is normalised by its own batch
        statistics; see `GroupedBatchNorm` for the order of the leading axis.
        """
        x = Conv(
            self.stage_widths[0],
            7,
            stride=2 if self.stem == "resnet" else 4,
            padding=3,
            reflect=False,
            use_bias=False,
            kernel_init=_kaiming_fan_out,
            dtype=self.dtype,
            name="conv1",
        )(images)
        x = nn.relu(GroupedBatchNorm(use_running_average, groups, name="bn1")(x))
        if self.stem == "resnet":
            x = max_pool(x)
        maps = []
        for stage, (size, width) in enumerate(
            zip(self.stage_sizes, self.stage_widths, strict=True), start=1
        ):
            stride = 1 if stage == 1 else 2
            if stage > 1 and stage == len(self.stage_sizes):
                stride = self.last_stride
            for index in range(size):
                x = ResNetBlock(
                    width,
                    stride if index == 0 else 1,
                    self.bottleneck,
                    use_running_average,
                    groups,
                    self.dtype,
                    name=f"layer{stage}_{index}",
                )(x)
            maps.append(x)
        return maps
