"""The exported re-ID encoder: the features of evaluation, without this package."""

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image
from safetensors.numpy import save_file
from tiny import IDENTITIES, tiny_config, tiny_state
from trained import BEST, save_evaluated, save_run

from dgnet_jax.convert.released import released_state_dicts
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.features import ranking_features
from dgnet_jax.export import write_export
from dgnet_jax.export.__main__ import main
from dgnet_jax.export.released import read_run
from dgnet_jax.inference import DGNet, load_model
from dgnet_jax.models import build_networks
from dgnet_jax.training.state import make_optimizers

ALPHA = 0.3
# Runs a program in which this package and Flax cannot be imported.
ALONE = (
    "import runpy, sys; sys.modules['dgnet_jax'] = sys.modules['flax'] = None; "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture(scope="module")
def model() -> DGNet:
    """A network that enlarges its images: they are kept at half its size."""
    config = tiny_config({"data.cache_height": 16, "data.cache_width": 8})
    networks = build_networks(config, IDENTITIES)
    state = tiny_state(networks, make_optimizers(config), 7)
    appearance = {"params": state.appearance, "batch_stats": state.appearance_stats}
    return DGNet(config, networks, state.generator, appearance, 7, "runs/tiny")


@pytest.fixture(scope="module")
def exported(model: DGNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(model, tmp_path_factory.mktemp("exported") / "new" / "out", ALPHA)


def random_images(count: int, height: int = 16, width: int = 8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("batch", [1, 3])
def test_any_batch_gives_the_features_of_evaluation(
    model: DGNet, exported: Path, batch: int
) -> None:
    function = jax_export.deserialize((exported / "embedder.jax").read_bytes())
    assert set(function.platforms) == {"cpu", "cuda", "tpu"}
    images = random_images(batch)
    prime, fine, ranking = map(np.asarray, function.call(images))
    expected = model.embeddings(images)
    np.testing.assert_allclose(prime, expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(fine, expected[:, 1], atol=1e-5)
    weighted = ranking_features(expected[:, 0], expected[:, 1], ALPHA)
    np.testing.assert_allclose(ranking, weighted, atol=1e-5)


def test_the_description_names_input_outputs_source_and_versions(exported: Path) -> None:
    description = json.loads((exported / "embedder.json").read_text())
    assert description["input"]["shape"] == ["batch", 16, 8, 3]
    assert [(output["name"], output["shape"]) for output in description["outputs"]] == [
        ("prime", ["batch", 8]),
        ("fine", ["batch", 8]),
        ("ranking", ["batch", 16]),
    ]
    assert description["alpha"] == ALPHA
    assert description["source"] == {"path": "runs/tiny", "step": 7}
    assert {"jax", "jaxlib", "flax", "dgnet_jax"} == description["versions"].keys()


def test_the_example_embeds_a_folder_of_crops_by_itself(
    model: DGNet, exported: Path, tmp_path: Path
) -> None:
    crops = tmp_path / "crops" / "deeper"
    crops.mkdir(parents=True)
    images = [Image.fromarray(image) for image in random_images(4)]
    images.append(Image.fromarray(random_images(1, 40, 30)[0]))
    images.append(images[0].convert("L"))
    for index, image in enumerate(images):
        image.save(crops / f"{index}.png")
    (crops / "broken.jpg").write_bytes(b"no image")
    # Its header claims 20,000 x 20,000 pixels, which Pillow refuses with an error of its own.
    images[0].save(crops / "huge.bmp")
    data = (crops / "huge.bmp").read_bytes()
    (crops / "huge.bmp").write_bytes(data[:18] + struct.pack("<ii", 20_000, 20_000) + data[26:])
    (crops / "Thumbs.db").write_bytes(b"")

    out = tmp_path / "features.npz"
    command = [sys.executable, "-c", ALONE, exported / "embed.py", tmp_path / "crops", out]
    run = subprocess.run(
        [*map(str, command), "--batch-size=4"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "broken.jpg: left out" in run.stdout
    assert "huge.bmp: left out" in run.stdout

    found = np.load(out)
    assert list(found["paths"]) == [f"deeper/{index}.png" for index in range(6)]
    bicubic = [image.convert("RGB").resize((8, 16), Image.Resampling.BICUBIC) for image in images]
    expected = model.embeddings(np.stack([np.asarray(image) for image in bicubic]))
    np.testing.assert_allclose(found["prime"], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(found["fine"], expected[:, 1], atol=1e-5)
    weighted = ranking_features(expected[:, 0], expected[:, 1], ALPHA)
    np.testing.assert_allclose(found["ranking"], weighted, atol=1e-5)


def test_what_cannot_be_exported_is_refused(model: DGNet, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .*absent: no such folder"):
        main([str(tmp_path / "absent"), str(tmp_path / "out")])
    with pytest.raises(InputError, match=r"--alpha: found -1"):
        write_export(model, tmp_path / "out", -1.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: cannot be made a folder"):
        write_export(model, tmp_path / "file", ALPHA)


def test_the_best_checkpoint_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config, state, _ = save_run(tmp_path / "run")
    arguments = [str(tmp_path / "run"), str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="error: .*no checkpoint has an evaluation"):
        main([*arguments, "--step=best"])
    save_evaluated(tmp_path / "run", config, (state, state))
    assert read_run(tmp_path / "run", "best").step == BEST
    main([*arguments, "--step=best"])
    assert f"MB, step {BEST} of {tmp_path / 'run'}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*arguments, "--step=last"])
    assert "argument --step: found 'last'. Give a number of" in capsys.readouterr().err


@pytest.fixture
def released(model: DGNet, tmp_path: Path) -> Path:
    """The network as a converted released checkpoint."""
    discriminator = tiny_state(model.networks, make_optimizers(model.config), 0).discriminator
    parts = released_state_dicts(model.generator, model.appearance, discriminator, 0)
    tensors = {f"{part}.{key}": array for part, own in parts.items() for key, array in own.items()}
    save_file(tensors, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def test_a_converted_checkpoint_is_a_model_without_a_run(model: DGNet, released: Path) -> None:
    config = model.config.copy_and_resolve_references()
    config.released = str(released)
    loaded = load_model(config, None)
    assert loaded.num_identities == IDENTITIES
    jax.tree.map(np.testing.assert_array_equal, loaded.generator, model.generator)
    images = random_images(3)
    np.testing.assert_array_equal(loaded.embeddings(images), model.embeddings(images))


def test_a_released_checkpoint_of_another_size_is_refused(released: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: --config.released: .*published sizes"):
        main([str(released), str(tmp_path / "out")])


def test_onnx_gives_the_same_features(model: DGNet, tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx", reason="the extra [onnx] is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX files are run with onnxruntime")
    from dgnet_jax.export.onnx_file import write_onnx

    # Where images are resized, a sum that lies between two levels may be rounded to the other one.
    for height, width, tolerance in ((32, 16, 1e-5), (16, 8, 5e-3)):
        config = tiny_config({"data.cache_height": height, "data.cache_width": width})
        path = write_onnx(replace(model, config=config), tmp_path / "embedder.onnx", ALPHA)
        session = runtime.InferenceSession(str(path))
        for batch in (1, 3):
            images = random_images(batch, height, width)
            prime, fine, ranking = session.run(["prime", "fine", "ranking"], {"images": images})
            expected = model.embeddings(images)
            np.testing.assert_allclose(prime, expected[:, 0], atol=tolerance)
            np.testing.assert_allclose(fine, expected[:, 1], atol=tolerance)
            weighted = ranking_features(expected[:, 0], expected[:, 1], ALPHA)
            np.testing.assert_allclose(ranking, weighted, atol=tolerance)
