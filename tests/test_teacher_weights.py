"""A teacher that is trained already: of another run, or of the released program."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import IDENTITIES, tiny_config, tiny_teacher

from dgnet_jax.convert import state_dict
from dgnet_jax.errors import InputError
from dgnet_jax.inference import load_teacher, load_teacher_model, refuse_other_network
from dgnet_jax.models import build_networks
from dgnet_jax.runtime.devices import place


@pytest.fixture(scope="module")
def variables() -> dict[str, Any]:
    return tiny_teacher(build_networks(tiny_config(), IDENTITIES))


def test_a_converted_teacher_is_used_as_it_is(variables: dict, tmp_path: Path) -> None:
    path = tmp_path / "net_last.safetensors"
    save_file(state_dict("teacher", variables), path)
    found = load_teacher(tiny_config(), IDENTITIES, path, place())
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_a_converted_teacher_is_an_evaluator_too(variables: dict, tmp_path: Path) -> None:
    path = tmp_path / "net_last.safetensors"
    save_file(state_dict("teacher", variables), path)
    model = load_teacher_model(tiny_config({"teacher.checkpoint": str(path)}), None)
    assert model.num_identities == IDENTITIES
    jax.tree.map(np.testing.assert_array_equal, model.variables, variables)


def test_a_converted_teacher_of_another_size_is_refused(variables: dict, tmp_path: Path) -> None:
    path = tmp_path / "net_last.safetensors"
    save_file(state_dict("teacher", variables), path)
    with pytest.raises(InputError, match=r"net_last.* knows 5 identities, the data set has 7"):
        load_teacher(tiny_config(), 7, path, place())
    wider = tiny_config({"teacher.embedding": 16})
    message = r"classifier\.add_block\.1\.bias has shape \(8,\), not \(16,\)"
    with pytest.raises(InputError, match=message):
        load_teacher(wider, IDENTITIES, path, place())
    with pytest.raises(InputError, match=r"teacher.checkpoint: no file .*absent.safetensors"):
        load_teacher(tiny_config(), IDENTITIES, tmp_path / "absent.safetensors", place())
    (tmp_path / "net_last.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"net_last\.pth is not a readable.*converted first"):
        load_teacher(tiny_config(), IDENTITIES, tmp_path / "net_last.pth", place())


@pytest.mark.parametrize(
    ("field", "there", "now"),
    [
        ("last_stride", 1, 2),
        ("pooling", "max", "average"),
        ("stem", "resnet", "strided"),
        ("stage_sizes", (2,), (1,)),
        ("stage_widths", (8,), (4,)),
        ("bottleneck", True, False),
        ("embedding", 16, 8),
    ],
)
def test_a_teacher_that_computes_something_else_is_refused(
    field: str, there: Any, now: Any
) -> None:
    config, saved = tiny_config(), tiny_config({f"teacher.{field}": there})
    assert config.teacher[field] == now
    refuse_other_network(config, config, Path("runs/other"))
    with pytest.raises(InputError, match=f"runs/other is another network: teacher.{field} is "):
        refuse_other_network(config, saved, Path("runs/other"))


def test_a_teacher_may_have_been_trained_otherwise() -> None:
    saved = tiny_config({"teacher.learning_rate": 1.0, "teacher.total_steps": 99})
    refuse_other_network(tiny_config(), saved, Path("runs/other"))
