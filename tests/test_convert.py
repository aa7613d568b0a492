"""Weights from PyTorch files: torchvision's names to a backbone."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from dgnet_jax.convert import convert_state_dict, load_backbone, locate, to_torch_layout
from dgnet_jax.errors import InputError
from dgnet_jax.models.reid import Teacher
from dgnet_jax.models.resnet import ResNet


@pytest.fixture(scope="module")
def variables() -> dict[str, Any]:
    """A narrow bottleneck ResNet of two stages with a head."""
    backbone = ResNet(stage_sizes=(1, 1), stage_widths=(2, 4))
    network = Teacher(backbone, num_identities=3, embedding=4)
    return jax.jit(network.init)(jax.random.key(0), jnp.zeros((2, 32, 16, 3)))


def torchvision_tensors() -> dict[str, np.ndarray]:
    """A state dict in torchvision's names and layout, each tensor of another value."""
    shapes = {
        "conv1.weight": (2, 3, 7, 7),
        "bn1.weight": (2,),
        "bn1.bias": (2,),
        "bn1.running_mean": (2,),
        "bn1.running_var": (2,),
        "bn1.num_batches_tracked": (),
        "layer1.0.conv2.weight": (2, 2, 3, 3),
        "layer1.0.downsample.0.weight": (8, 2, 1, 1),
        "fc.weight": (1000, 16),
    }
    rng = np.random.default_rng(0)
    return {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


def test_tensors_arrive_in_their_layers_and_layouts(variables: dict, tmp_path: Path) -> None:
    tensors = torchvision_tensors()
    save_file(tensors, tmp_path / "resnet.safetensors")
    filled, missing = load_backbone(str(tmp_path / "resnet.safetensors"), variables)

    backbone = filled["params"]["backbone"]
    kernel = np.asarray(backbone["layer1_0"]["downsample_conv"]["kernel"])
    np.testing.assert_array_equal(to_torch_layout(kernel), tensors["layer1.0.downsample.0.weight"])
    # Row 3, column 5, input channel 1, output channel 0 of the stem.
    assert backbone["conv1"]["kernel"][3, 5, 1, 0] == tensors["conv1.weight"][0, 1, 3, 5]
    np.testing.assert_array_equal(backbone["bn1"]["scale"], tensors["bn1.weight"])
    average = filled["batch_stats"]["backbone"]["bn1"]["var"]
    np.testing.assert_array_equal(average, tensors["bn1.running_var"])

    assert "backbone/layer1_0/conv1/kernel" in missing
    assert not any("layer1_0/conv2" in name or "head" in name for name in missing)
    start = variables["params"]["backbone"]["layer2_0"]["conv3"]["kernel"]
    np.testing.assert_array_equal(backbone["layer2_0"]["conv3"]["kernel"], start)


def test_unusable_files_are_refused_by_name(variables: dict, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*absent\.safetensors"):
        load_backbone(str(tmp_path / "absent.safetensors"), variables)

    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(InputError, match=r"text\.safetensors is not a readable safetensors"):
        load_backbone(str(tmp_path / "text.safetensors"), variables)

    save_file({"other.weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no tensor of a ResNet.*other.weight"):
        load_backbone(str(tmp_path / "other.safetensors"), variables)

    wide = torchvision_tensors() | {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(
        InputError, match=r"backbone/conv1/kernel .*\(7, 7, 3, 64\).*\(7, 7, 3, 2\)"
    ):
        load_backbone(str(tmp_path / "wide.safetensors"), variables)


def test_keys_without_a_counterpart() -> None:
    tensors = {
        "model.fc.weight": np.zeros((1000, 2048)),
        "model.bn1.num_batches_tracked": np.zeros(()),
        "model.non_local.0.theta.weight": np.zeros((4, 4, 1, 1)),
    }
    conversion = convert_state_dict("id", tensors)
    assert conversion.variables == {"params": {}, "batch_stats": {}}
    assert conversion.unknown == ["model.non_local.0.theta.weight"]
    assert locate("gen", "dec.model.1.model.0.model.0.norm.running_mean") is None
