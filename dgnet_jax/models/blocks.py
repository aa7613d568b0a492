"""Layers that the paper's networks share: convolution, padding, norms, residual blocks, MLP.

`dtype` is the type of convolutions and matmuls; statistics of norms are computed in at least
float32.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Float, PRNGKeyArray, Shaped

Array = jax.Array
Initializer = jax.nn.initializers.Initializer

LEAKY_SLOPE = 0.2
NORM_EPSILON = 1e-5

# On a CPU (`_weight_gradient`): pixels of a map and product of its channels from which a weight
# gradient is matmuls, of so many pixels each; or else pixels from which it is convolutions, of so
# many images each.
_LARGE_MAP = 1024
_MANY_CHANNELS = 64 * 128
_PIXELS_AT_ONCE = 8192
_HUGE_MAP = 2**14
_IMAGES_AT_ONCE = 2

# Encoder, decoder and MLPs: kaiming normal, fan-in, gain sqrt 2.
kaiming_fan_in = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def leaky_relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Leaky ReLU of slope 0.2."""
    return jnp.where(x >= 0, x, LEAKY_SLOPE * x)


def statistics_dtype(x: Shaped[Array, "..."]) -> jnp.dtype:
    """The type in which statistics of `x` are computed: float32, or float64 for float64 input."""
    return jnp.promote_types(x.dtype, jnp.float32)


def moments(
    x: Float[Array, "*shape"], axes: tuple[int, ...], near: Float[Array, "*#shape"]
) -> tuple[Float[Array, "*#shape"], Float[Array, "*#shape"]]:
    """Mean and biased variance over `axes` (kept, of length 1), in one pass over `x`.

    Both are sums over the same values, which many devices reduce together. `near` is subtracted
    first, so that the variance is no difference of large numbers: any constant, the nearer to the
    mean the better; it has no gradient.
    """
    near = lax.stop_gradient(near)
    moved = x - near
    mean = moved.mean(axes, keepdims=True)
    variance = jnp.square(moved).mean(axes, keepdims=True) - jnp.square(mean)
    return mean + near, jnp.maximum(variance, 0)


def _widths(padding: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    rows, columns = padding
    return (0, 0), (rows, rows), (columns, columns), (0, 0)


def reflect_pad(
    x: Float[Array, "batch h w c"], padding: tuple[int, int]
) -> Float[Array, "batch padded_h padded_w c"]:
    """Pads (rows, columns) by reflection, the border row or column itself not repeated."""
    return jnp.pad(x, _widths(padding), mode="reflect")


def zero_pad(
    x: Float[Array, "batch h w c"], padding: tuple[int, int]
) -> Float[Array, "batch padded_h padded_w c"]:
    """Pads (rows, columns) with zeros."""
    return jnp.pad(x, _widths(padding))


class Geometry(NamedTuple):
    """How a convolution meets its input.

    padding: rows and columns added on each side, with zeros or by reflection. upsample: nearest
    upsampling by 2 before that; for 5x5 kernels with a reflected padding of 2.
    """

    stride: int = 1
    dilation: int = 1
    padding: tuple[int, int] = (0, 0)
    reflect: bool = False
    upsample: bool = False


# Stride 1, no padding.
PLAIN = Geometry()


_always_plain = ContextVar("_always_plain", default=False)


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Convolutions that are traced inside have their plain form, also on a CPU.

    For converters of traced programs that know no choice by platform. What JAX has traced before,
    of the same function, keeps its form.
    """
    token = _always_plain.set(True)
    try:
        yield
    finally:
        _always_plain.reset(token)


def convolve(
    x: Float[Array, "batch h w in_c"],
    kernel: Float[Array, "rows columns in_c out_c"],
    geometry: Geometry = PLAIN,
    forward_mode: bool = False,
) -> Float[Array, "batch out_h out_w out_c"]:
    """Convolution in the form that is fastest where it runs.

    The form is chosen when the program is lowered, by the platform that it is lowered for: what is
    exported on a CPU carries the plain form to GPUs and TPUs.

    Args:
        forward_mode: whether `jax.jvp` has to pass through.
    """
    if kernel.shape[:2] == (1, 1) and not (any(geometry.padding) or geometry.upsample):
        # XLA's CPU convolution takes several times a matmul's time for 1 x 1 weight gradients.
        x = _every(x, geometry.stride) if geometry.stride > 1 else x
        return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
    if _always_plain.get():
        return _plainly(x, kernel, geometry)
    if not forward_mode:
        return _convolve(x, kernel, geometry)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_on_a_cpu, geometry=geometry, forward_mode=True),
        default=partial(_plainly, geometry=geometry),
    )


def _every(x: Array, stride: int) -> Array:
    """Every `stride`-th row and column.

    For NVIDIA GPUs behind a barrier: XLA's fusion into matmuls takes a slice that only a matmul
    uses, of an array that others use too, for one without strides, and aborts the process
    (github.com/openxla/xla/issues/47381; jaxlib 0.10.2 and 0.11.2, not 0.12.0.1).
    """

    def strided(x: Array) -> Array:
        return x[:, ::stride, ::stride]

    def apart(x: Array) -> Array:
        return lax.optimization_barrier(strided(x))

    if _always_plain.get():
        return strided(x)
    return lax.platform_dependent(x, cuda=apart, default=strided)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """`convolve` for reverse mode: it keeps its input for the gradient, not the padded copy."""
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_on_a_cpu, geometry=geometry),
        default=partial(_plainly, geometry=geometry),
    )


def _convolve_forward(
    x: Array, kernel: Array, geometry: Geometry
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, geometry), (x, kernel)


def _convolve_backward(
    geometry: Geometry, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    def pull(form: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
        def backward(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
            return jax.vjp(partial(form, geometry=geometry), x, kernel)[1](gradient)

        return backward

    return lax.platform_dependent(*saved, gradient, cpu=pull(_on_a_cpu), default=pull(_plainly))


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _plainly(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """As written, for accelerators: upsample, pad, convolve."""
    stride, dilation, padding, reflect, upsample = geometry
    if upsample:
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    if reflect:
        x, padding = reflect_pad(x, padding), (0, 0)
    rows, columns = padding
    return _convolution(x, kernel, stride, dilation, ((rows, rows), (columns, columns)))


def _on_a_cpu(x: Array, kernel: Array, geometry: Geometry, forward_mode: bool = False) -> Array:
    """In the forms that XLA's CPU backend is fast at."""
    stride, dilation, padding, reflect, upsample = geometry
    if upsample:
        return _upsample_by_phases(x, kernel)
    if any(padding):
        x = (reflect_pad if reflect else zero_pad)(x, padding)
    if x.dtype == jnp.float64:
        return _convolve_by_matmuls(x, kernel, stride, dilation)
    if forward_mode:
        return _padded_convolution(x, kernel, stride, dilation)
    return _canonical_convolution(x, kernel, stride, dilation)


def _convolution(
    x: Array,
    kernel: Array,
    stride: int,
    dilation: int,
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    input_dilation: int = 1,
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=padding,
        lhs_dilation=(input_dilation, input_dilation),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _padded_convolution(x: Array, kernel: Array, stride: int, dilation: int) -> Array:
    """Without padding in effect: one column of it, cut off again.

    XLA's CPU backend is 3 to 7 times slower, forward and in the weight gradient, where a
    convolution has no padding at all (jaxlib 0.10.2, measured).
    """
    y = _convolution(x, kernel, stride, dilation, ((0, 0), (0, 1)))
    return y[:, :, : _output_size(x.shape[2], kernel.shape[1], stride, dilation)]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _canonical_convolution(x: Array, kernel: Array, stride: int, dilation: int) -> Array:
    """A convolution whose gradients are convolutions in XLA's canonical layout.

    XLA's CPU backend brings convolutions into that layout only at the top of a program. Under
    `lax.cond` a weight gradient as JAX writes it is 60 times slower (jaxlib 0.10.2, measured).
    """
    return _padded_convolution(x, kernel, stride, dilation)


def _canonical_forward(
    x: Array, kernel: Array, stride: int, dilation: int
) -> tuple[Array, tuple[Array, Array]]:
    return _padded_convolution(x, kernel, stride, dilation), (x, kernel)


def _canonical_backward(
    stride: int, dilation: int, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    rows, columns = kernel.shape[:2]
    weights = _weight_gradient(x, kernel, stride, dilation, gradient)
    # Input: the mirrored kernel over the spread-out gradient; rows that no window reached are 0.
    padding = []
    for axis, size in ((1, rows), (2, columns)):
        reach = dilation * (size - 1)
        spread = (gradient.shape[axis] - 1) * stride + 1
        padding.append((reach, x.shape[axis] - spread))
    inputs = _convolution(
        gradient,
        kernel[::-1, ::-1].transpose(0, 1, 3, 2),
        1,
        dilation,
        (padding[0], padding[1]),
        input_dilation=stride,
    )
    return inputs, weights


_canonical_convolution.defvjp(_canonical_forward, _canonical_backward)


def _weight_gradient(x: Array, kernel: Array, stride: int, dilation: int, gradient: Array) -> Array:
    """The gradient of a kernel; of large maps it is summed over some images at a time.

    XLA's CPU backend is several times slower where it gets all images of a large map at once, and
    with many channels faster as matmuls than as a convolution (jaxlib 0.10.2, measured).
    """
    rows, columns, features_in, features_out = kernel.shape
    pixels = gradient.shape[1] * gradient.shape[2]
    matmuls = stride == 1 and pixels >= _LARGE_MAP and features_in * features_out >= _MANY_CHANNELS

    def of(x: Array, gradient: Array) -> Array:
        if matmuls:
            return _weight_gradient_by_matmul(x, kernel.shape, dilation, gradient)
        # A convolution where channels take the place of the batch, strides that of dilations.
        return _padded_convolution(
            x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), dilation, stride
        )[:, :rows, :columns].transpose(1, 2, 0, 3)

    # A loop over the batch would gather a batch that is spread over devices.
    if jax.device_count() > 1 or not (matmuls or pixels >= _HUGE_MAP):
        return of(x, gradient)
    at_once = max(1, _PIXELS_AT_ONCE // pixels) if matmuls else _IMAGES_AT_ONCE
    while len(x) % at_once:
        at_once -= 1
    chunks = (
        x.reshape(-1, at_once, *x.shape[1:]),
        gradient.reshape(-1, at_once, *gradient.shape[1:]),
    )
    total, _ = lax.scan(
        lambda total, images: (total + of(*images), None),
        jnp.zeros(kernel.shape, statistics_dtype(x)),
        chunks,
    )
    return total.astype(kernel.dtype)


def _weight_gradient_by_matmul(
    x: Array, shape: tuple[int, ...], dilation: int, gradient: Array
) -> Array:
    """The gradient of a kernel of stride 1, for all taps in one matmul.

    Images shifted by the kernel's rows meet gradients shifted by its columns.
    """
    rows, columns, features_in, features_out = shape
    height, width = gradient.shape[1:3]
    shifted = [x[:, r * dilation : r * dilation + height] for r in range(rows)]
    gradients = []
    for column in range(columns):
        left = column * dilation
        right = x.shape[2] - width - left
        gradients.append(jnp.pad(gradient, ((0, 0), (0, 0), (left, right), (0, 0))))
    weights = lax.dot_general(
        jnp.concatenate(shifted, -1),
        jnp.concatenate(gradients, -1),
        (((0, 1, 2), (0, 1, 2)), ((), ())),
        preferred_element_type=statistics_dtype(x),
    )
    weights = weights.reshape(rows, features_in, columns, features_out)
    return weights.transpose(0, 2, 1, 3)


def _output_size(size: int, kernel: int, stride: int, dilation: int) -> int:
    return (size - dilation * (kernel - 1) - 1) // stride + 1


def _convolve_by_matmuls(x: Array, kernel: Array, stride: int, dilation: int) -> Array:
    """A sum of one matmul for each tap: XLA's CPU backend has no fast float64 convolution.

    The taps are a loop, and recomputed in the gradient, to keep compilation and memory small.
    """
    rows, columns = kernel.shape[:2]
    batch, _, _, channels = x.shape
    height = _output_size(x.shape[1], rows, stride, dilation)
    width = _output_size(x.shape[2], columns, stride, dilation)
    reach = (batch, (height - 1) * stride + 1, (width - 1) * stride + 1, channels)

    @jax.checkpoint
    def add_tap(total: Array, tap: tuple[Array, Array]) -> tuple[Array, None]:
        index, weights = tap
        corner = (0, index // columns * dilation, index % columns * dilation, 0)
        taken = lax.dynamic_slice(x, corner, reach)[:, ::stride, ::stride]
        return total + lax.dot_general(taken, weights, (((3,), (0,)), ((), ()))), None

    start = jnp.zeros((batch, height, width, kernel.shape[-1]), x.dtype)
    taps = (jnp.arange(rows * columns), kernel.reshape(-1, *kernel.shape[2:]))
    total, _ = lax.scan(add_tap, start, taps)
    return total


def _upsample_by_phases(
    x: Float[Array, "batch h w in_c"], kernel: Float[Array, "5 5 in_c out_c"]
) -> Float[Array, "batch 2*h 2*w out_c"]:
    """Nearest upsampling by 2, reflection padding of 2 and a 5x5 convolution, in one.

    Each of the four phases of the output sees only 3x3 pixels of the input, with kernel taps that
    fall on the same pixel added up: 2.8 times fewer multiplications. Reflection of the upsampled
    image is not a padding of the input, so the outermost rows and columns are computed as written.

    Height and width are 2 or more.
    """
    batch, height, width, _ = x.shape
    features = kernel.shape[-1]
    # taps[phase, pixel, tap] is 1 where that tap of the 5 falls on that pixel of the 3.
    taps = jnp.asarray(
        [
            [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
            [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
        ],
        statistics_dtype(kernel),
    )
    phases = jnp.einsum(
        "apr,bqc,rcio->pqiabo",
        taps,
        taps,
        kernel.astype(taps.dtype),
        precision=lax.Precision.HIGHEST,
    ).astype(kernel.dtype)
    phases = phases.reshape(3, 3, x.shape[-1], 4 * features)
    edged = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    y = _on_a_cpu(edged, phases, PLAIN).reshape(batch, height, width, 2, 2, features)
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, features)

    def outermost(pixels: Sequence[Array], axis: int) -> Array:
        """The row (axis 1) or column (axis 2) of the output that sees these five of the input."""
        strip = jnp.repeat(jnp.concatenate(pixels, axis), 2, 3 - axis)
        widths = [(0, 0)] * 4
        widths[3 - axis] = (2, 2)
        return _on_a_cpu(jnp.pad(strip, widths, mode="reflect"), kernel, PLAIN)

    for axis in (1, 2):
        size = x.shape[axis]
        first, second, before_last, last = (
            lax.slice_in_dim(x, pixel, pixel + 1, axis=axis) for pixel in (0, 1, size - 2, size - 1)
        )
        start = outermost([second, first, first, first, second], axis)
        end = outermost([before_last, last, last, last, before_last], axis)
        y = lax.dynamic_update_slice_in_dim(y, start, 0, axis)
        y = lax.dynamic_update_slice_in_dim(y, end, y.shape[axis] - 1, axis)
    return y


class Conv(nn.Module):
    """A convolution with the padding of the released networks.

    Attributes:
        features: output channels.
        kernel_size: rows and columns of the kernel.
        padding: rows and columns added on each side.
        reflect: pad by reflection (the DG-Net blocks) rather than with zeros (ResNets).
        upsample: upsample by 2 (nearest) first; for a 5x5 kernel with a padding of 2.
        forward_mode: whether `jax.jvp` has to pass through (the discriminator).
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    reflect: bool = True
    upsample: bool = False
    forward_mode: bool = False
    use_bias: bool = True
    kernel_init: Initializer = kaiming_fan_in
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch h w c"]
    ) -> Float[Array, "batch out_h out_w {self.features}"]:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = jnp.asarray(self.param("kernel", self.kernel_init, shape), self.dtype)
        padding = (self.padding, self.padding)
        geometry = Geometry(self.stride, self.dilation, padding, self.reflect, self.upsample)
        y = convolve(x.astype(self.dtype), kernel, geometry, self.forward_mode)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + jnp.asarray(bias, self.dtype)
        return y


def instance_norm(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
    """Instance norm without affine parameters: per image and channel, biased variance."""
    wide = x.astype(statistics_dtype(x))
    mean, variance = moments(wide, (1, 2), wide[:, :1, :1])
    return ((wide - mean) * lax.rsqrt(variance + NORM_EPSILON)).astype(x.dtype)


def adaptive_instance_norm(
    x: Float[Array, "batch h w c"], scale: Float[Array, "batch c"], shift: Float[Array, "batch c"]
) -> Float[Array, "batch h w c"]:
    """AdaIN: instance norm, times `scale`, plus `shift`; no "1 +"."""
    scale, shift = scale[:, None, None, :], shift[:, None, None, :]
    return instance_norm(x) * scale.astype(x.dtype) + shift.astype(x.dtype)


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    return jax.random.uniform(key, shape, dtype)


class ImageLayerNorm(nn.Module):
    """Layer norm over rows, columns and channels of each image, with the unbiased deviation.

    (x - mean) / (std + 1e-5), times a per-channel gamma (drawn uniformly from [0, 1)) plus beta.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
        gamma = self.param("gamma", _uniform, (x.shape[-1],))
        beta = self.param("beta", nn.initializers.zeros, (x.shape[-1],))
        wide = x.astype(statistics_dtype(x))
        count = x.shape[1] * x.shape[2] * x.shape[3]
        mean, variance = moments(wide, (1, 2, 3), wide[:, :1, :1, :1])
        deviation = jnp.sqrt(variance * (count / (count - 1)))
        return ((wide - mean) / (deviation + NORM_EPSILON) * gamma + beta).astype(x.dtype)


class ConvNorm(nn.Module):
    """A conv block of the structure encoder: reflection, convolution, instance norm, activation."""

    features: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    activate: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch h w c"]
    ) -> Float[Array, "batch out_h out_w {self.features}"]:
        x = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            padding=self.dilation * (self.kernel_size // 2),
            dilation=self.dilation,
            dtype=self.dtype,
            name="conv",
        )(x)
        x = instance_norm(x)
        return leaky_relu(x) if self.activate else x


class ResidualBlock(nn.Module):
    """x + norm(conv(act(norm(conv(x))))), 3x3, nothing after the sum.

    `norms` are the two norms, functions of the convolution's output (identity in the
    discriminator, instance norm in the encoder, AdaIN in the decoder).
    """

    norms: tuple[Callable[[Array], Array], Callable[[Array], Array]]
    forward_mode: bool = False
    kernel_init: Initializer = kaiming_fan_in
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
        def conv(name: str, x: Array) -> Array:
            return Conv(
                x.shape[-1],
                3,
                padding=1,
                forward_mode=self.forward_mode,
                kernel_init=self.kernel_init,
                dtype=self.dtype,
                name=name,
            )(x)

        y = leaky_relu(self.norms[0](conv("conv_0", x)))
        return x + self.norms[1](conv("conv_1", y))


class MLP(nn.Module):
    """Fully connected layers with leaky ReLU between them and nothing at the end."""

    features: tuple[int, ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch c"]) -> Float[Array, "batch {self.features[-1]}"]:
        for index, width in enumerate(self.features):
            x = nn.Dense(
                width, kernel_init=kaiming_fan_in, dtype=self.dtype, name=f"dense_{index}"
            )(x)
            if index + 1 < len(self.features):
                x = leaky_relu(x)
        return x
