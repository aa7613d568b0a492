"""PyTorch's files to .safetensors and back, and files that must not get through."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from reference import Reference
from safetensors.numpy import load_file, save_file
from tiny import IDENTITIES, tiny_config, tiny_state
from trained import BEST, save_evaluated

from configs import base
from dgnet_jax.convert import load_released, load_teacher_weights
from dgnet_jax.convert.__main__ import main
from dgnet_jax.convert.architecture import check, recognise
from dgnet_jax.convert.released import convert, released_state_dicts, write_released
from dgnet_jax.errors import InputError
from dgnet_jax.models import build_networks
from dgnet_jax.models.initialization import init_parameters
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.workdir import DGNET_STAGE, stage_directory
from dgnet_jax.training.state import TrainState, make_optimizers

torch = pytest.importorskip("torch", reason="PyTorch's files are written and read with PyTorch")

SHAPES = json.loads((Path(__file__).parent / "data" / "state_dict_shapes.json").read_text())
STEP = 7


@pytest.fixture(scope="module")
def state() -> TrainState:
    """Tiny networks of other numbers of blocks, dilations and scales than the released ones."""
    config = tiny_config()
    return tiny_state(build_networks(config, IDENTITIES), make_optimizers(config), STEP)


@pytest.fixture(scope="module")
def state_dicts(state: TrainState) -> dict[str, dict[str, np.ndarray]]:
    appearance = {"params": state.appearance, "batch_stats": state.appearance_stats}
    return released_state_dicts(state.generator, appearance, state.discriminator, STEP)


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}


def assert_is_state(path: Path, state: TrainState) -> None:
    """The file gives the state's parameters, bit for bit."""
    found = load_released(path, build_networks(tiny_config(), 1))
    appearance = {"params": state.appearance, "batch_stats": state.appearance_stats}
    # A released checkpoint's step is in its name only.
    wanted = (state.generator, appearance, state.discriminator, 0)
    assert jax.tree.structure(tuple(found)) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, tuple(found), wanted)


def test_a_run_to_the_released_layout_and_back_is_the_same_bits(
    state: TrainState, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tiny_config()
    work_directory.unlock(work_directory.prepare(tmp_path / "run", config))
    with Checkpoints(stage_directory(tmp_path / "run", DGNET_STAGE), config) as checkpoints:
        checkpoints.save(STEP, state)

    main(["--to-released", str(tmp_path / "run"), str(tmp_path / "released")])
    names = sorted(path.name for path in (tmp_path / "released").iterdir())
    assert names == [f"{part}_{STEP:08d}.pt" for part in ("dis", "gen", "id")]
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "released" / f"{part}_{STEP:08d}.pt") for part in ("gen", "id", "dis")
    ]
    # torch's own reader agrees about the form, and finds a Linear's weight as (out, in).
    saved = torch.load(tmp_path / "released" / names[1], weights_only=True)
    assert list(saved) == ["a"]
    kernel = state.generator["decoder"]["scale_mlp_0"]["dense_1"]["kernel"]
    np.testing.assert_array_equal(saved["a"]["mlp_w1.model.1.fc.weight"].numpy().T, kernel)

    main([str(tmp_path / "released"), str(tmp_path / "back.safetensors")])
    assert_is_state(tmp_path / "back.safetensors", state)


def test_the_best_checkpoint_is_converted(
    state: TrainState, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tiny_config()
    work_directory.unlock(work_directory.prepare(tmp_path / "run", config))
    save_evaluated(tmp_path / "run", config, (state, state))
    main(["--to-released", str(tmp_path / "run"), str(tmp_path / "to"), "--step=best"])
    names = {path.name for path in (tmp_path / "to").iterdir()}
    assert names == {f"{part}_{BEST:08d}.pt" for part in ("dis", "gen", "id")}
    with pytest.raises(SystemExit):
        main(["--to-released", str(tmp_path / "run"), str(tmp_path / "to"), "--step=last"])
    assert "argument --step: found 'last'. Give a number of" in capsys.readouterr().err


def test_a_full_size_network_gets_the_released_keys_and_shapes() -> None:
    networks = build_networks(base.get_config(), 751)

    def init(key: jax.Array) -> Any:
        return init_parameters(networks, 256, 128, key)

    shapes = jax.eval_shape(init, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    for part, arrays in released_state_dicts(*zeros, step=STEP).items():
        assert {key: list(array.shape) for key, array in arrays.items()} == SHAPES[part]
        for key, array in arrays.items():
            counter = key.endswith("num_batches_tracked")
            assert array.dtype == (np.int64 if counter else np.float32), key


def test_the_newest_iteration_of_a_folder_is_taken(
    state: TrainState, state_dicts: dict, tmp_path: Path
) -> None:
    old = {
        part: {key: 0 * array for key, array in arrays.items()}
        for part, arrays in state_dicts.items()
    }
    write_released(old, tmp_path, 900)
    write_released(state_dicts, tmp_path, 1000)
    # Of 1100 only a part was written.
    torch.save({"a": tensors(old["gen"])}, tmp_path / "gen_00001100.pt")
    (tmp_path / "optimizer.pt").write_bytes(b"")
    convert([tmp_path], tmp_path / "out.safetensors")
    assert_is_state(tmp_path / "out.safetensors", state)


def test_bare_and_wrapped_state_dicts_prefixes_and_non_local_keys(
    state: TrainState, state_dicts: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    extra = {"model.layer1.0.nl.theta.weight": torch.zeros(2, 2, 1, 1)}
    torch.save(tensors(state_dicts["gen"]), tmp_path / "gen.pt")
    torch.save({"a": tensors(state_dicts["dis"]), "b": {}}, tmp_path / "dis.pt")
    parallel = {f"module.{key}": value for key, value in tensors(state_dicts["id"]).items()}
    torch.save({"a": parallel | extra}, tmp_path / "id.pt", _use_new_zipfile_serialization=False)
    target = tmp_path / "new" / "out.safetensors"
    main([*(str(tmp_path / f"{part}.pt") for part in ("dis", "id", "gen")), str(target)])
    assert "left out, no layer of the networks here: id.model.layer1.0.nl.theta.weight" in (
        capsys.readouterr().out
    )
    assert_is_state(target, state)
    assert "id.model.layer1.0.nl.theta.weight" not in load_file(target)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "a"])
def test_a_checkpoint_of_a_training_is_read_whatever_is_beside_its_state_dict(
    state_dicts: dict, tmp_path: Path, wrapper: str, prefix: str
) -> None:
    """PyTorch's ImageNet example stores the best accuracy as a tensor beside it."""
    arrays = state_dicts["id"]
    content = {
        "epoch": 90,
        "arch": "resnet50",
        wrapper: {f"{prefix}{key}": value for key, value in tensors(arrays).items()},
        "best_acc1": torch.tensor(76.1),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{}]},
        "scheduler": {"last_epoch": 90},
    }
    torch.save(content, tmp_path / "id.pt")
    convert([tmp_path / "id.pt"], tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == {f"id.{key}" for key in arrays}
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[f"id.{key}"], array)


def test_a_changed_byte_of_a_weight_is_found_by_the_zips_checksum(
    state_dicts: dict, tmp_path: Path
) -> None:
    source = tmp_path / "id.pt"
    torch.save({"a": tensors(state_dicts["id"])}, source)
    data = bytearray(source.read_bytes())
    data[data.index(state_dicts["id"][KERNEL].tobytes()) + 2] ^= 1
    source.write_bytes(data)
    with pytest.raises(InputError, match=r"id\.pt: .*data/\d+ in it does not have its checksum"):
        convert([source], tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda array: array.astype(ml_dtypes.float8_e4m3fn), "is of F8_E4M3, which is not read"),
        (lambda array: array * np.nan, "holds NaN or infinite values"),
    ],
)
def test_weights_of_few_bits_and_nan_are_refused_where_they_are_loaded(
    state_dicts: dict, tmp_path: Path, damage: Callable, found: str
) -> None:
    parts = {f"id.{key}": array for key, array in state_dicts["id"].items()}
    parts[f"id.{KERNEL}"] = damage(parts[f"id.{KERNEL}"])
    save_file(parts, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=rf"a\.safetensors .*id\.{KERNEL} {found}"):
        load_released(tmp_path / "a.safetensors", build_networks(tiny_config(), 1))


def test_every_kind_is_recognised_by_its_keys_and_found_whole() -> None:
    shapes = SHAPES | {
        "resnet": {
            key.removeprefix("model."): shape
            for key, shape in SHAPES["teacher"].items()
            if key.startswith("model.")
        }
    }
    assert len(shapes) == 6
    for kind, of_kind in shapes.items():
        of_kind = {key: tuple(shape) for key, shape in of_kind.items()}
        assert recognise(list(of_kind), "file") == kind
        assert check(kind, of_kind, "file") == []


def test_torchvisions_inception_is_not_taken_for_that_of_fid() -> None:
    shapes = {key: tuple(shape) for key, shape in SHAPES["inception"].items()}
    with pytest.raises(InputError, match=r"torchvision's Inception.*pt_inception-2015-12-05"):
        check("inception", shapes | {"fc.bias": (1000,)}, "file")
    del shapes["Mixed_7c.branch_pool.conv.weight"]
    assert check("inception", shapes, "file") == ["Mixed_7c.branch_pool.conv.weight"]
    with pytest.raises(
        InputError, match=r"Mixed_5b.branch1x1.bn.bias has shape \(7,\), not \(64,\)"
    ):
        check("inception", shapes | {"Mixed_5b.branch1x1.bn.bias": (7,)}, "file")


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.marker}'",)


def without(arrays: dict, key: str) -> dict:
    return {name: array for name, array in arrays.items() if name != key}


CLASSIFIER = "classifier2.add_block.1.running_var"
KERNEL = "model.layer1.0.conv1.weight"
COUNTER = "model.bn1.num_batches_tracked"
BLOCK = "model.layer1.999999999.conv1.weight"
FAULTS: dict[str, tuple[Callable[[dict, Path], Any], str]] = {
    "hostile": (lambda arrays, marker: {**tensors(arrays), "x": Hostile(marker)}, "executing code"),
    "no state dict": (lambda arrays, marker: [1, 2], "expected a state dict.*found list"),
    "numbers": (lambda arrays, marker: {"a": {"step": 3}}, "expected a state dict.*'a': dict"),
    "other network": (
        lambda arrays, marker: {"features.0.weight": torch.zeros(64, 3, 3, 3)},
        r"no network known here \(features.0.weight\).*gen:.*resnet:",
    ),
    "missing": (
        lambda arrays, marker: {"a": tensors(without(arrays, CLASSIFIER))},
        rf"not a whole id network .*: {CLASSIFIER} is missing\.",
    ),
    "misshapen": (
        lambda arrays, marker: {"a": tensors(arrays | {KERNEL: np.zeros((4, 4, 5, 3))})},
        rf"{KERNEL} has shape \(4, 4, 5, 3\), not \(4, 4, 3, 3\)",
    ),
    "expanded": (
        lambda arrays, marker: {"a": {**tensors(arrays), KERNEL: torch.zeros(1).expand(10**12)}},
        f"{KERNEL}: not an ordinary tensor",
    ),
    "expanded counter": (
        lambda arrays, marker: {
            "a": {**tensors(arrays), COUNTER: torch.zeros(1, dtype=torch.int64).expand(10**12)}
        },
        f"{COUNTER}: not an ordinary tensor",
    ),
    "countless blocks": (
        lambda arrays, marker: {"a": {**tensors(arrays), BLOCK: torch.zeros(1)}},
        "not a whole id network",
    ),
    "an integer weight": (
        lambda arrays, marker: {"a": tensors(arrays | {KERNEL: arrays[KERNEL].astype(np.int8)})},
        f"{KERNEL} holds int8 values",
    ),
    "a complex weight": (
        lambda arrays, marker: {"a": tensors(arrays | {KERNEL: arrays[KERNEL] + 0j})},
        f"{KERNEL}: not an ordinary tensor .*complex",
    ),
    "a negative variance": (
        lambda arrays, marker: {"a": tensors(arrays | {CLASSIFIER: arrays[CLASSIFIER] - 9})},
        f"{CLASSIFIER} holds negative values",
    ),
    "two state dicts": (
        lambda arrays, marker: {"model": tensors(arrays), "state_dict": tensors(arrays)},
        "'state_dict' and 'model' in it may both be the state dict",
    ),
    "two of a name": (
        lambda arrays, marker: {**tensors(arrays), f"module.{KERNEL}": torch.zeros(1)},
        f"two tensors are {KERNEL} without",
    ),
    "numbers for names": (
        lambda arrays, marker: {0: torch.zeros(1), **tensors(arrays)},
        "expected a state dict",
    ),
    "not a number": (
        lambda arrays, marker: {"a": tensors(arrays | {KERNEL: arrays[KERNEL] * np.nan})},
        f"{KERNEL} holds NaN",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_refused_and_nothing_is_run_or_written(
    fault: str, state_dicts: dict, tmp_path: Path
) -> None:
    make, message = FAULTS[fault]
    source, target, marker = tmp_path / "id.pt", tmp_path / "out.safetensors", tmp_path / "ran"
    torch.save(make(state_dicts["id"], marker), source)
    target.write_text("as it was")
    with pytest.raises(InputError, match=message) as raised:
        convert([source], target)
    assert str(source) in str(raised.value)
    assert not marker.exists()
    assert target.read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["id.pt", "out.safetensors"]


def test_a_bare_hostile_pickle_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "id.pt").write_bytes(pickle.dumps({"a": Hostile(tmp_path / "ran")}))
    with pytest.raises(InputError, match=r"id\.pt: .*without executing code"):
        convert([tmp_path / "id.pt"], tmp_path / "out.safetensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_files_cut_off_anywhere_are_refused(
    zipped: bool, state_dicts: dict, tmp_path: Path
) -> None:
    source = tmp_path / "id.pt"
    saved = {"a": tensors(state_dicts["id"])}
    torch.save(saved, source, _use_new_zipfile_serialization=zipped)
    whole = source.read_bytes()
    for share in (0, 0.01, 0.5, 0.99):
        source.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=r"id\.pt: not a PyTorch state dict.*complete"):
            convert([source], tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["id.pt"]


def test_the_command_tells_what_is_wrong_in_one_line(state_dicts: dict, tmp_path: Path) -> None:
    def error_of(*arguments: str | Path) -> str:
        with pytest.raises(SystemExit) as raised:
            main([str(argument) for argument in arguments])
        assert isinstance(raised.value.code, str)
        return raised.value.code

    write_released(state_dicts, tmp_path, STEP)
    gen, out = tmp_path / f"gen_{STEP:08d}.pt", tmp_path / "out.safetensors"
    assert "absent.pt: no such file" in error_of(tmp_path / "absent.pt", out)
    assert "ends in .safetensors" in error_of(out, gen)
    assert gen.stat().st_size > 0
    (tmp_path / "empty").mkdir()
    assert "no gen_*.pt and id_*.pt" in error_of(tmp_path / "empty", out)
    assert "no tensor of torchvision's ResNet" in error_of("--kind", "resnet", gen, out)
    assert "a second gen file" in error_of(gen, gen, out)
    assert "no config.json" in error_of("--to-released", tmp_path / "empty", tmp_path / "to")
    assert error_of("--to-released", gen).startswith("error: --to-released: found 1 paths")
    assert not out.exists() and not (tmp_path / "to").exists()


def test_a_part_or_another_size_cannot_be_loaded(state_dicts: dict, tmp_path: Path) -> None:
    write_released(state_dicts, tmp_path, STEP)
    networks = build_networks(tiny_config(), IDENTITIES)
    convert([tmp_path / f"gen_{STEP:08d}.pt"], tmp_path / "gen.safetensors")
    with pytest.raises(InputError, match=r"gen\.safetensors holds no tensor of id.*id_\*\.pt"):
        load_released(tmp_path / "gen.safetensors", networks)
    convert([tmp_path], tmp_path / "all.safetensors")
    other = build_networks(tiny_config({"structure_encoder.dim": 8}), IDENTITIES)
    message = r"gen\.dec\.model\.6\.conv\.bias has shape \(8,\), not \(16,\).*published sizes"
    with pytest.raises(InputError, match=message):
        load_released(tmp_path / "all.safetensors", other)
    with pytest.raises(InputError, match=r"--config.released: no file absent"):
        load_released("absent", networks)
    with pytest.raises(InputError, match=r"not a readable safetensors file.*converted first"):
        load_released(tmp_path / f"gen_{STEP:08d}.pt", networks)


@pytest.mark.slow
def test_converted_files_reproduce_the_released_programs_forwards(
    shared: Path, tmp_path: Path
) -> None:
    folder = shared / "reference"
    reference = Reference(folder / "dgnet_step.npz", folder / "state_dict_shapes.json")
    for part in ("gen", "id", "dis"):
        torch.save({"a": tensors(reference.weights(part))}, tmp_path / f"{part}_00100000.pt")
    torch.save(tensors(reference.weights("teacher")), tmp_path / "net_last.pth")
    main([str(tmp_path), str(tmp_path / "dgnet.safetensors")])
    main([str(tmp_path / "net_last.pth"), str(tmp_path / "teacher.safetensors")])

    config = base.get_config()
    pooling = {"max": "max", "avg": "average"}
    config.appearance.pooling = pooling[reference.meta["pool"]]
    config.teacher.pooling = pooling[reference.meta["teacher_pool"]]
    config.teacher.last_stride = reference.meta["teacher_last_stride"]
    networks = build_networks(config, reference.meta["num_classes"])
    generator, appearance, discriminator, _ = load_released(
        tmp_path / "dgnet.safetensors", networks
    )
    teacher = load_teacher_weights(tmp_path / "teacher.safetensors", networks.teacher)

    @jax.jit
    def forwards(images: jax.Array) -> dict[str, jax.Array]:
        structure = networks.structure_encoder.apply(
            {"params": generator["structure_encoder"]}, images
        )
        features, prime, fine = networks.appearance_encoder.apply(appearance, images)
        decoded = networks.decoder.apply({"params": generator["decoder"]}, structure, features.code)
        scores = networks.discriminator.apply({"params": discriminator}, images)
        return {
            "structure_code": structure.transpose(0, 3, 1, 2)[:, :, ::16, ::8],
            "appearance_code": features.code[:, ::64],
            "logits_prime": prime.logits[:, ::25],
            "logits_fine": fine.logits[:, ::25],
            "decoded": decoded.transpose(0, 3, 1, 2)[:, :, ::16, ::8],
            "teacher_logits": networks.teacher.apply(teacher, images).logits[:, ::25],
            **{f"dis_scale{i}": score.transpose(0, 3, 1, 2) for i, score in enumerate(scores)},
        }

    found = forwards(jnp.asarray(reference.images(0, "xa"), jnp.float32))
    expected = reference.under("eval.")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4 * np.abs(value).max(), rtol=0)
