"""A run as one .safetensors file: its weights and its configuration."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import IDENTITIES
from trained import BEST, STEP, save_evaluated, save_run

from dgnet_jax.config import default_config, trained_config
from dgnet_jax.convert.__main__ import main
from dgnet_jax.errors import InputError
from dgnet_jax.export.released import to_safetensors
from dgnet_jax.inference import load_model
from dgnet_jax.runtime.workdir import as_json

PATHS = ("data.root", "data.poses", "teacher.checkpoint", "pretrained", "inception")
HERE = {**{name: f"/somewhere/{name}" for name in PATHS}, "seed": 7}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    return workdir, *save_run(workdir, HERE)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 32, 16, 3), np.uint8)


def test_the_file_takes_the_place_of_the_run(run, images, tmp_path):
    workdir, config, state, _ = run
    file = to_safetensors(workdir, tmp_path / "new" / "weights.safetensors")
    stored = trained_config(file)
    assert stored.released == str(file)
    assert (stored.seed, stored.structure_encoder.dim) == (7, config.structure_encoder.dim)
    model, trained = load_model(stored, None), load_model(trained_config(workdir), workdir)
    jax.tree.map(np.testing.assert_array_equal, model.generator, state.generator)
    jax.tree.map(np.testing.assert_array_equal, model.appearance, trained.appearance)
    assert model.num_identities == IDENTITIES
    assert model.step == trained.step == STEP
    np.testing.assert_array_equal(model.swap(images, images), trained.swap(images, images))


def test_paths_of_this_machine_are_not_in_it(run, tmp_path):
    file = to_safetensors(run[0], tmp_path / "weights.safetensors")
    stored = trained_config(file)
    assert stored.data.root == stored.teacher.checkpoint == ""
    assert b"somewhere" not in file.read_bytes()


def test_bfloat16_halves_the_kernels_and_leaves_norms_as_they_are(run, images, tmp_path):
    workdir, _, state, _ = run
    whole = to_safetensors(workdir, tmp_path / "whole.safetensors")
    half = to_safetensors(workdir, tmp_path / "half.safetensors", dtype="bfloat16")
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    model = load_model(trained_config(half), None)

    def compare(restored, saved):
        assert restored.dtype == np.float32
        if restored.ndim > 1:
            np.testing.assert_allclose(restored, saved, rtol=2**-8)
        else:
            np.testing.assert_array_equal(restored, saved)

    jax.tree.map(compare, model.generator, state.generator)
    assert model.swap(images, images).shape == images.shape


def test_the_command_writes_a_checkpoint_of_ones_choice(tmp_path, capsys):
    config, state, _ = save_run(tmp_path / "run")
    moved = jax.tree.map(lambda leaf: leaf + 1, state)
    save_evaluated(tmp_path / "run", config, (moved, state))
    file = tmp_path / "best.safetensors"
    main(["--to-safetensors", str(tmp_path / "run"), str(file), "--step=best"])
    assert capsys.readouterr().out.startswith(f"{file}: ")
    jax.tree.map(
        np.testing.assert_array_equal,
        load_model(trained_config(file), None).generator,
        moved.generator,
    )
    assert BEST > STEP


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to-safetensors", "RUN", "out.pth"], r"out\.pth: the file to write comes last"),
        (["--to-safetensors", "RUN"], "found 1 paths; give WORKDIR and what to write"),
        (["--to-safetensors", "--to-released", "RUN", "OUT"], "give one of them"),
        (["--to-safetensors", "RUN", "OUT", "--kind=gen"], "--kind: is for PyTorch's files"),
        (["--to-released", "RUN", "OUT", "--dtype=bfloat16"], "--dtype is for --to-safetensors"),
        (["a.pth", "out.safetensors", "--dtype=bfloat16"], "--dtype is for --to-safetensors"),
        (["a.pth", "out.safetensors", "--step=3"], "--step is for --to-safetensors and --to-rel"),
        (["--to-safetensors", "no_such_run", "out.safetensors"], "no_such_run: no such folder"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(
    run, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    given = [str(run[0]) if argument == "RUN" else argument for argument in arguments]
    with pytest.raises(SystemExit, match=message):
        main(given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"data": 3}, r"--config\.data: found a value"),
        ({"teacher": None}, r"--config\.teacher: found a value"),
        ({"total_steps": "8"}, r"--config\.total_steps: found '8'"),
        ({"seed": {"a": 1}}, r"--config\.seed\.a: no such field"),
        ({"stages": 3}, r"--config\.stages: no such field"),
    ],
)
def test_a_configuration_with_a_wrong_field_is_named_with_its_file(tmp_path, inside, change, found):
    content = json.dumps(as_json(default_config()) | change)
    place = tmp_path / ("a.safetensors" if inside else "config.json")
    if inside:
        save_file({"a": np.zeros(1)}, place, {"config": content})
    else:
        place.write_text(content)
    with pytest.raises(InputError, match=rf"(?s)^{place}: not the configuration of a run.*{found}"):
        trained_config(place if inside else tmp_path)


@pytest.mark.parametrize("content", ["null", "[]", "{", "[" * 100_000, '{"a.b": 1}'])
def test_metadata_that_is_no_configuration_is_named(tmp_path, content):
    save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors", {"config": content})
    with pytest.raises(InputError, match=r"a\.safetensors: holds no configuration"):
        trained_config(tmp_path / "a.safetensors")


def test_a_file_without_a_configuration_says_what_to_do(tmp_path):
    file = tmp_path / "other.safetensors"
    with pytest.raises(InputError, match=r"other\.safetensors: no such file"):
        trained_config(file)
    save_file({"a": np.zeros(2, np.float32)}, file)
    with pytest.raises(InputError, match=r"holds no configuration \(no .* in its metadata\); "):
        trained_config(file)
    file.write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"other\.safetensors: holds no configuration"):
        trained_config(file)
