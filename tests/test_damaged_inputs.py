"""Random damage to every kind of file: refused by its reader's own error, or harmless; no hang.

Each reader has whole files, one of which is damaged: cut off, with bytes flipped, put in or taken
out, a JSON value replaced by another, or something else in its place. A reader may refuse it with
the error that it documents, or give a value that it vouches for: of a format with checksums the
undamaged value, of others one that is valid by its schema.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_market import draw_market, smooth_image, zip_folder
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from report_page import log_lines, row
from safetensors.numpy import save_file
from tiny import tiny_config

from dgnet_jax.ablation import Study
from dgnet_jax.ablation.progress import WallTime
from dgnet_jax.ablation.report.runs import read_history
from dgnet_jax.ablation.results import read_results, write_result
from dgnet_jax.config import trained_config
from dgnet_jax.config_fields import checked
from dgnet_jax.convert import load_backbone
from dgnet_jax.data.cache import decode
from dgnet_jax.data.decoding import ImageError, decode_image
from dgnet_jax.data.generated import read_generated, read_soft_labels
from dgnet_jax.data.images import read_photographs
from dgnet_jax.data.poses import read_poses
from dgnet_jax.data.prepare import prepare
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.splits import ReidDataset
from dgnet_jax.data.synthetic import Settings, drawn_settings
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.fid import FeatureStatistics, load_statistics, save_statistics
from dgnet_jax.models.inception import load_inception
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.workdir import as_json, load_config

EXAMPLES = 13  # of each of the readers: 300 and some in all
SECONDS = 20  # for one input; a tenth is usual
SIZE = (32, 16)


@dataclass(frozen=True)
class Reader:
    """make: writes whole files into a folder. files: those that can be damaged, as patterns.

    read: the folder to a value. valid: whether a value is one that the reader may give for a
    damaged file; the undamaged one always is.
    """

    make: Callable[[Path], object]
    files: tuple[str, ...]
    read: Callable[[Path], Any]
    valid: Callable[[Any], bool] = lambda value: False
    errors: tuple[type[Exception], ...] = (InputError,)


def same(one: Any, other: Any) -> bool:
    """Equality of values that hold arrays."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def encoded(file_format: str, **options: Any) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = 6, "a person"
        smooth_image(0, *SIZE).save(folder / "a", file_format, exif=exif, **options)

    return make


def is_image(value: Any) -> bool:
    return value.shape == (*SIZE, 3) and value.dtype == np.uint8


def image_reader(file_format: str, **options: Any) -> Reader:
    def read(folder: Path) -> np.ndarray:
        return decode_image((folder / "a").read_bytes(), *SIZE)

    # What is no file is told before the bytes are there: `image of a folder`.
    return Reader(encoded(file_format, **options), ("a",), read, is_image, (ImageError, OSError))


def photographs(folder: Path) -> None:
    for i in range(3):
        smooth_image(i, *SIZE).save(folder / f"{i}.png")


def dataset_value(dataset: ReidDataset) -> Any:
    """Everything of a data set, its images decoded."""
    return {
        name: (
            [os.path.basename(file) for file in split.files],
            split.identities,
            split.cameras,
            decode(split, 8, 4).images,
        )
        for name, split in dataset.splits.items()
    }


def is_dataset(value: Any) -> bool:
    """Parts that fit each other."""
    return {"train", "query", "gallery"} <= value.keys() and all(
        len(files) == len(identities) == len(cameras) == len(images) > 0
        and identities.min() >= -1
        and images.dtype == np.uint8
        for files, identities, cameras, images in value.values()
    )


def market(folder: Path) -> None:
    root = draw_market(folder)
    root.rename(folder / "Market-1501")


def market_zip(folder: Path) -> None:
    zip_folder(draw_market(folder), folder / "a.zip")
    shutil.rmtree(folder / "Market-1501-v15.09.15")


def table(folder: Path) -> None:
    lines = ["path,identity,camera,split"]
    for i, split in enumerate(("train", "train", "query", "gallery", "gallery")):
        smooth_image(i, *SIZE).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{('anna', 'ben', 'cleo', 'cleo', 'dan')[i]},{i % 2},{split}")
    (folder / "a.csv").write_text("\n".join(lines) + "\n")


def records(folder: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        prepared = Path(prepare("market1501", draw_market(folder / "raw"), folder / "tfds"))
    shutil.rmtree(folder / "raw")
    prepared.rename(folder / "records")


def run_config(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(as_json(checked(tiny_config()))))


def is_config(value: Any) -> bool:
    return value == checked(value)


def weights(folder: Path, metadata: dict[str, str] | None = None) -> None:
    arrays = {
        "conv1.weight": np.arange(12, dtype=np.float32).reshape(2, 3, 1, 2),
        "bn1.running_var": np.ones(2, np.float32),
    }
    save_file(arrays, folder / "a.safetensors", metadata)


BACKBONE = {
    "params": {"backbone": {"stem": {"kernel": np.zeros((1, 2, 3, 2), np.float32)}}},
    "batch_stats": {},
}


def study(folder: Path) -> None:
    config = as_json(checked(tiny_config()))
    plan = {"losses": {"l1": "l1", "mse": "mse"}, "seeds": [0, 1], "config": config}
    (folder / "study.json").write_text(json.dumps(plan))
    for seed in (0, 1):
        run = folder / "runs" / "l1" / f"seed_{seed}"
        run.mkdir(parents=True)
        sizes = {"dims": 64, "generated": 9, "real": 9, "fid_png": 3.5, "mAP": 0.5}
        write_result(run, row("l1", seed, **sizes))


def named_results(folder: Path) -> Any:
    rows, damaged = read_results(folder)
    assert len(rows) + len(damaged) == 2, "a result that is neither read nor named"
    text = Study.load(folder).text()
    assert all(fault in text for fault in damaged)
    return rows


def is_results(value: Any) -> bool:
    return all(
        isinstance(one["seed"], int) and one["status"] in ("finished", "diverged") for one in value
    )


def is_history(value: Any) -> bool:
    curves = [*value.evaluations.values(), *value.losses.values()]
    return all((np.diff(one.steps) > 0).all() and one.values.dtype == float for one in curves)


def features(folder: Path) -> None:
    found = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    save_statistics(folder / "a.npz", FeatureStatistics.of(found), found)


def statistics(folder: Path) -> Any:
    found, kept = load_statistics(folder / "a.npz")
    return found.count, found.mean, found.covariance, kept


def state_dict(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
    torch.save({"state_dict": tensors, "best": torch.tensor(3.0)}, folder / "a.pth")


def pth(folder: Path) -> Any:
    from dgnet_jax.convert.pth import read_pth

    return read_pth(folder / "a.pth")


def keypoints(folder: Path) -> None:
    rows, columns = list(range(10, 28)), list(range(30, 48))
    lines = [f"{name}.jpg: {rows}: {columns}" for name in "abc"]
    (folder / "a.csv").write_text("\n".join(["name:keypoints_y:keypoints_x", *lines]) + "\n")


def is_poses(value: Any) -> bool:
    return all(
        pose.shape == (18, 2) and pose.min() >= -1 and (pose < (128, 64)).all()
        for pose in value.values()
    )


def generated(folder: Path) -> None:
    columns = "file,identity,camera,label,appearance_source,structure_source,seed"
    lines = [f"{i}.jpg,{(2, 5)[i % 2]},{i},{i % 2},a.jpg,b.jpg,7" for i in range(6)]
    (folder / "manifest.csv").write_text("\n".join([columns, *lines]) + "\n")
    (folder / "dataset.json").write_text(json.dumps({"model": "m", "identities": [2, 5]}))
    np.save(folder / "soft_labels.npy", np.full((6, 2), 0.5, np.float32))


def generated_set(folder: Path) -> Any:
    split, labels, identities = read_generated(folder)
    soft = np.array(read_soft_labels(folder, len(labels), len(identities)))
    return split.files, split.identities, split.cameras, labels, identities, soft


def is_generated(value: Any) -> bool:
    files, identities, cameras, labels, people, soft = value
    return (
        len(files) == len(identities) == len(cameras) == len(labels) == len(soft) > 0
        and [people[label] for label in labels] == identities.tolist()
        and np.allclose(soft.sum(1), 1, atol=1e-3)
    )


DRAWN = Settings(3, 4, 2, 2, 1, 1, 32, 16)


def marker(folder: Path) -> None:
    content = DRAWN.__dict__ | {"images": {"query": 4}}
    (folder / "dataset.json").write_text(json.dumps(content))


def is_settings(value: Any) -> bool:
    return value is None or all(type(number) is int for number in value.__dict__.values())


STATE = {"a": np.arange(6, dtype=np.float32), "b": {"c": np.ones((2, 3), np.float32)}}


def checkpoint(folder: Path) -> None:
    with Checkpoints(folder / "checkpoints", {"seed": 1}) as checkpoints:
        checkpoints.save(5, STATE, {"mAP": 0.5})


def restored(folder: Path) -> Any:
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        found = checkpoints.restore(STATE, 5)
        metrics = checkpoints.metrics(5)
    assert metrics is None or isinstance(metrics, dict)
    return {"a": np.asarray(found["a"]), "b": {"c": np.asarray(found["b"]["c"])}}


READERS: dict[str, Reader] = {
    "jpeg": image_reader("JPEG"),
    "png": image_reader("PNG"),
    "tiff": image_reader("TIFF"),
    "compressed tiff": image_reader("TIFF", compression="tiff_lzw"),
    "webp": image_reader("WEBP"),
    "bmp": Reader(
        lambda folder: smooth_image(0, *SIZE).save(folder / "a", "BMP"),
        ("a",),
        lambda folder: decode_image((folder / "a").read_bytes(), *SIZE),
        is_image,
        (ImageError, OSError),
    ),
    "photographs": Reader(
        photographs,
        ("1.png",),
        lambda folder: read_photographs([folder], *SIZE),
        lambda value: (
            len(value.images) + len(value.skipped) >= 2 and value.images.dtype == np.uint8
        ),
    ),
    "folder": Reader(
        market,
        ("Market-1501/*/*.jpg",),
        lambda folder: dataset_value(load_dataset("market1501", folder)),
        is_dataset,
    ),
    "zip": Reader(
        market_zip,
        ("a.zip",),
        lambda folder: dataset_value(load_dataset("market1501", folder / "a.zip")),
        is_dataset,
    ),
    "table": Reader(
        table,
        ("a.csv",),
        lambda folder: dataset_value(load_dataset("csv", folder / "a.csv")),
        is_dataset,
    ),
    "prepared records": Reader(
        records,
        ("records/*",),
        lambda folder: dataset_value(load_dataset("market1501", folder / "records")),
        is_dataset,
    ),
    "config.json": Reader(run_config, ("config.json",), trained_config, is_config),
    "unchecked config.json": Reader(run_config, ("config.json",), load_config, lambda value: True),
    "configuration in weights": Reader(
        lambda folder: weights(folder, {"config": json.dumps(as_json(checked(tiny_config())))}),
        ("a.safetensors",),
        lambda folder: trained_config(folder / "a.safetensors").copy_and_resolve_references(),
        is_config,
    ),
    "backbone": Reader(
        weights,
        ("a.safetensors",),
        lambda folder: load_backbone(folder / "a.safetensors", BACKBONE).variables,
        lambda value: bool(
            np.isfinite(np.asarray(value["params"]["backbone"]["stem"]["kernel"])).all()
        ),
    ),
    "inception": Reader(
        weights, ("a.safetensors",), lambda folder: load_inception(folder / "a.safetensors", 64)
    ),
    "study.json": Reader(study, ("study.json",), named_results, is_results),
    "result.json": Reader(study, ("runs/l1/*/result.json",), named_results, is_results),
    "metrics.jsonl": Reader(
        lambda folder: (folder / "metrics.jsonl").write_text(log_lines(0, 0.0)),
        ("metrics.jsonl",),
        lambda folder: read_history(folder / "metrics.jsonl"),
        is_history,
    ),
    "wall time": Reader(
        lambda folder: (folder / "wall_time.json").write_text('{"wall_seconds": 12.5}'),
        ("wall_time.json",),
        lambda folder: round(WallTime(folder).seconds),
        lambda value: value >= 0,
    ),
    "statistics": Reader(features, ("a.npz",), statistics),
    "state dict": Reader(state_dict, ("a.pth",), pth),
    "poses": Reader(
        keypoints, ("a.csv",), lambda folder: read_poses(str(folder / "a.csv")), is_poses
    ),
    "generated set": Reader(
        generated,
        ("dataset.json", "manifest.csv", "soft_labels.npy"),
        generated_set,
        is_generated,
    ),
    "drawn data set": Reader(marker, ("dataset.json",), drawn_settings, is_settings),
    "checkpoint": Reader(
        checkpoint,
        ("checkpoints/5/**/*",),
        restored,
    ),
}
# Whose loading or refusal takes tenths of a second.
SLOW = {"prepared records": 8, "checkpoint": 8, "inception": 6}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """A reader's name to the folder with its files, and the value of these."""
    made: dict[str, tuple[Path, Any]] = {}

    def get(name: str) -> tuple[Path, Any]:
        if name not in made:
            folder = tmp_path_factory.mktemp("whole")
            READERS[name].make(folder)
            with contextlib.suppress(InputError):  # the inception's weights are no network's
                made[name] = folder, READERS[name].read(folder)
            made.setdefault(name, (folder, None))
        return made[name]

    return get


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raises AssertionError where a block takes longer than `SECONDS`."""

    def stop(*_: object) -> None:
        raise AssertionError(f"not over after {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


ODD_VALUES = (
    *("null", "true", '"text"', '""', "-1", "0", "3.5", "1e400", "NaN", "99999999999999999999"),
    *("[]", "{}", "[null]", '{"a": {"b": []}}', "[" * 60 + "]" * 60, '"\\ud800"', "[" * 100_000),
)


def with_odd_value(text: str, choose: random.Random) -> str:
    """JSON with one of its values, at any depth, replaced by an odd one."""
    content, mark = json.loads(text), "the place of an odd value"
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                collect(node[key])

    if isinstance(content, dict | list):
        collect(content)
    odd = choose.choice(ODD_VALUES)
    if not places:
        return odd
    node, key = choose.choice(places)
    node[key] = mark
    return json.dumps(content).replace(json.dumps(mark), odd)


def damage(file: Path, kind: str, choose: random.Random) -> None:
    """Damages a file in place."""
    data = file.read_bytes()
    place = choose.randrange(len(data) + 1)
    length = choose.choice((1, 2, 8, 100))
    if kind in ("folder", "fifo", "device"):
        file.unlink()
        if kind == "folder":
            file.mkdir()
        elif kind == "fifo":
            os.mkfifo(file)
        else:
            file.symlink_to("/dev/zero")
        return
    if kind == "json":
        try:
            lines = data.decode().splitlines()
            index = choose.randrange(len(lines)) if file.suffix == ".jsonl" else None
            if index is None:
                data = with_odd_value(data.decode(), choose).encode()
            else:
                lines[index] = with_odd_value(lines[index], choose)
                data = "\n".join(lines).encode()
        except ValueError:  # it is no JSON: a number in it, then
            kind = "flip"
    if kind == "cut":
        data = data[:place]
    elif kind == "flip":
        changed = bytearray(data)
        for _ in range(length if data else 0):
            changed[choose.randrange(len(data))] ^= choose.randrange(1, 256)
        data = bytes(changed)
    elif kind == "put in":
        data = data[:place] + choose.randbytes(length) + data[place:]
    elif kind == "taken out":
        data = data[:place] + data[place + length :]
    elif kind == "doubled":
        data = data[:place] + data[max(place - length, 0) : place] + data[place:]
    elif kind == "other":
        data = choose.choice((b"", b"\x00" * 64, b"PK\x03\x04", b"{}", b"[]", b"null", b"\xff" * 9))
    file.write_bytes(data)


KINDS = (
    *("cut", "flip", "flip", "put in", "taken out", "doubled", "other"),
    *("folder", "fifo", "device", "json", "json"),
)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of EXIF and of metadata
@pytest.mark.parametrize("name", READERS)
def test_damage_is_refused_or_harmless(name: str, whole: Callable[[str], tuple[Path, Any]]):
    check_reader(name, READERS[name], *whole(name), SLOW.get(name, EXAMPLES))


def check_reader(name: str, reader: Reader, folder: Path, value: Any, examples: int) -> None:
    """Raises AssertionError, or what the reader raised, for damage that is not dealt with.

    folder: with the whole files; value: of these. The same damage in every run.
    """

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(KINDS), st.integers(0, 2**32))
    def check(kind: str, seed: int) -> None:
        choose = random.Random(f"{name} {kind} {seed}")
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary) / "copy"
            shutil.copytree(folder, copy)
            files = sorted(
                file for pattern in reader.files for file in copy.glob(pattern) if file.is_file()
            )
            file = choose.choice(files)
            if reader.errors != (InputError,) and kind in ("fifo", "device"):
                kind = "flip"  # its reader takes bytes
            damage(file, kind, choose)
            with limited():
                try:
                    found = reader.read(copy)
                except reader.errors as error:
                    assert str(error)
                    return
            where = f"{kind} in {file.relative_to(copy)}, seed {seed}"
            assert same(found, value) or reader.valid(found), f"{where}: accepted as {found}"

    check()


def test_readers_that_do_not_look_are_found(tmp_path: Path):
    """The check itself: a reader that raises other errors, one that takes all, one that waits."""
    (tmp_path / "a").write_text('{"a": [1, 2]}')

    def parsed(folder: Path) -> Any:
        return json.loads((folder / "a").read_bytes()) if (folder / "a").is_file() else 0

    def forgiving(folder: Path) -> Any:
        with contextlib.suppress(ValueError, RecursionError):
            return parsed(folder)

    def waiting(folder: Path) -> Any:
        signal.raise_signal(signal.SIGALRM)

    for read, errors in (
        (parsed, (ValueError, RecursionError)),
        (forgiving, AssertionError),
        (waiting, AssertionError),
    ):
        reader = Reader(lambda folder: None, ("a",), read)
        with pytest.raises(errors):
            check_reader(read.__name__, reader, tmp_path, parsed(tmp_path), 30)
