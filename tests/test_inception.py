"""The FID Inception against the released network's numbers (reference/inception.npz)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import fill, seeded
from safetensors.numpy import save_file

from dgnet_jax.errors import InputError
from dgnet_jax.models.inception import (
    DIMS,
    Inception,
    average_pool,
    convert_inception,
    inception_features,
    load_inception,
    parameter_shapes,
    prepare,
)

# The stride of the stored maps over channels and pixels, by the channels of the map.
STORED = {64: ("block0", 8, 18), 192: ("block1", 16, 8), 768: ("block2", 64, 4)}


def shapes_of(shared: Path) -> dict[str, list[int]]:
    shapes = json.loads((shared / "reference" / "state_dict_shapes.json").read_text())["inception"]
    return {key: shape for key, shape in shapes.items() if not key.startswith("fc.")}


@pytest.fixture(scope="module")
def filled(shared: Path) -> dict[str, np.ndarray]:
    return fill(shapes_of(shared), lambda key: f"inception.{key}")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = seeded("inception.images")
    coarse = rng.integers(0, 256, (4, 16, 8, 3))
    return np.kron(coarse, np.ones((16, 16, 1), int)).astype(np.uint8)


def assert_close(value: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Relative, but for what cancelled down to a thousandth of the largest value."""
    atol = 1e-3 * tolerance * np.abs(expected).max()
    np.testing.assert_allclose(value, expected, rtol=tolerance, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-3)])
def test_every_stage_agrees_with_the_2015_network(
    shared: Path,
    filled: dict[str, np.ndarray],
    images: np.ndarray,
    dtype: str,
    tolerance: float,
) -> None:
    reference = np.load(shared / "reference" / "inception.npz")
    with jax.enable_x64(dtype == "float64"):
        params = convert_inception(filled.__getitem__, set(filled), 2048, "filled")
        params = jax.tree.map(lambda array: jnp.asarray(array, dtype), params)

        @jax.jit
        def maps(params: dict, images: jax.Array) -> dict[int, jax.Array]:
            return Inception().apply({"params": params}, prepare(images, jnp.dtype(dtype)))

        found = {dims: np.asarray(value) for dims, value in maps(params, images).items()}
    assert found[2048].dtype == dtype
    for dims, (name, channels, pixels) in STORED.items():
        value = found[dims].transpose(0, 3, 1, 2)[:, ::channels, ::pixels, ::pixels]
        assert_close(value, reference[name], tolerance)
    assert_close(found[2048].mean((1, 2)), reference["pool3"], tolerance)


def test_images_are_resized_by_bilinear_interpolation() -> None:
    rows = np.arange(200, dtype=np.uint8)
    images = np.broadcast_to(rows[None, :, None, None], (1, 200, 400, 3))
    prepared = np.asarray(prepare(jnp.asarray(images)))
    assert prepared.shape == (1, 299, 299, 3)
    # A ramp stays one where it is not cut off: output pixel i sees row (i + 0.5) 200 / 299 - 0.5.
    expected = np.clip((np.arange(299) + 0.5) * 200 / 299 - 0.5, 0, 199) / 255 * 2 - 1
    np.testing.assert_allclose(prepared[0, :, 7, 1], expected, atol=1e-6)


def test_shrinking_takes_two_neighbours_only() -> None:
    """No antialiasing: a line that no output pixel's centre comes near leaves no trace."""
    images = np.zeros((1, 299, 897, 3), np.uint8)
    images[:, :, 3::3] = 255
    # Output column j is centred on input column 3j + 1; 3j + 3 is two away.
    np.testing.assert_array_equal(np.asarray(prepare(jnp.asarray(images))), -1)


def test_torch_resizes_alike() -> None:
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).integers(0, 256, (1, 256, 128, 3), np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255
    x = torch.nn.functional.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
    with jax.enable_x64(True):
        prepared = prepare(jnp.asarray(images), jnp.float64)
    np.testing.assert_allclose(prepared, (2 * x - 1).permute(0, 2, 3, 1).numpy(), atol=1e-12)


def test_average_pools_do_not_count_padding() -> None:
    pooled = average_pool(jnp.arange(9.0).reshape(1, 3, 3, 1))[0, :, :, 0]
    # The corner is the mean of 0, 1, 3, 4; the edge that of 0..5; the middle that of all.
    np.testing.assert_allclose(pooled, [[2, 2.5, 3], [3.5, 4, 4.5], [5, 5.5, 6]])


def layers_up_to(dims: int) -> dict[str, np.ndarray]:
    """A pytorch-fid state dict of zeros with what `dims` needs."""
    tensors = {}
    for path, shape in parameter_shapes(dims).items():
        layer = ".".join(path[:-1])
        if path[-1] == "kernel":
            tensors[f"{layer}.conv.weight"] = np.zeros((*shape[:1:-1], *shape[:2]), np.float32)
        else:
            for name in ("weight", "bias", "running_mean", "running_var"):
                tensors[f"{layer}.bn.{name}"] = np.zeros(shape, np.float32)
    return tensors


def test_layers_have_the_names_and_shapes_of_pytorch_fid(shared: Path) -> None:
    needed = {key: list(tensor.shape) for key, tensor in layers_up_to(2048).items()}
    known = {
        key: shape
        for key, shape in shapes_of(shared).items()
        if not key.endswith("num_batches_tracked")
    }
    assert needed == known


def test_weights_without_the_last_blocks_say_what_to_download(tmp_path: Path) -> None:
    path = tmp_path / "partial.safetensors"
    save_file(layers_up_to(192), path)
    for dims in (64, 192):
        assert set(load_inception(path, dims)) <= set(load_inception(path, 192))
    with pytest.raises(InputError, match=r"Mixed_5b.*pt_inception-2015-12-05-6726825d\.pth") as e:
        load_inception(path, 768)
    assert "python -m dgnet_jax.convert pt_inception" in str(e.value)
    assert "--dims 192" in str(e.value)


def test_unusable_weights_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.safetensors: no such file"):
        load_inception(tmp_path / "absent.safetensors", 64)

    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(InputError, match=r"text\.safetensors: not a readable safetensors"):
        load_inception(tmp_path / "text.safetensors", 64)

    save_file({"conv1.weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"no tensor of the FID Inception.*conv1\.weight"):
        load_inception(tmp_path / "other.safetensors", 64)

    wide = layers_up_to(64) | {"Conv2d_1a_3x3.conv.weight": np.zeros((64, 3, 3, 3), np.float32)}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(InputError, match=r"Conv2d_1a_3x3\.conv\.weight has shape \(64, 3, 3, 3\)"):
        load_inception(tmp_path / "wide.safetensors", 64)

    with pytest.raises(InputError, match="dims: found 1024. Give one of 64, 192, 768, 2048"):
        load_inception(tmp_path / "wide.safetensors", 1024)


def test_a_negative_variance_is_refused(tmp_path: Path) -> None:
    tensors = layers_up_to(64)
    name = next(key for key in tensors if key.endswith("running_var"))
    tensors[name] = np.full_like(tensors[name], -0.5)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=rf"a\.safetensors: {name} holds negative values"):
        load_inception(tmp_path / "a.safetensors", 64)


def test_batch_norms_are_folded(tmp_path: Path) -> None:
    """ReLU(scale (conv x - mean) / sqrt(var + 1e-3) + shift), by hand for a constant image."""
    rng = np.random.default_rng(0)
    tensors = {
        key: rng.random(tensor.shape).astype(np.float32) for key, tensor in layers_up_to(64).items()
    }
    save_file(tensors, tmp_path / "w.safetensors")
    layer = load_inception(tmp_path / "w.safetensors", 64)["Conv2d_1a_3x3"]
    t = {key.removeprefix("Conv2d_1a_3x3."): value for key, value in tensors.items()}
    total = t["conv.weight"].sum((1, 2, 3))
    expected = (total - t["bn.running_mean"]) / np.sqrt(t["bn.running_var"] + 1e-3)
    expected = expected * t["bn.weight"] + t["bn.bias"]
    np.testing.assert_allclose(layer["kernel"].sum((0, 1, 2)) + layer["bias"], expected, rtol=1e-5)


def test_features_are_spatial_means_for_every_choice() -> None:
    assert DIMS == (64, 192, 768, 2048)
    params = {
        path: jnp.zeros(shape) if path[-1] == "kernel" else jnp.ones(shape)
        for path, shape in parameter_shapes(64).items()
    }
    nested = {path[0]: {} for path in params}
    for path, value in params.items():
        nested[path[0]][path[1]] = value
    features = inception_features(nested, jnp.zeros((2, 8, 4, 3), jnp.uint8), 64)
    np.testing.assert_array_equal(features, np.ones((2, 64)))
