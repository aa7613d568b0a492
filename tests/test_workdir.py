"""A work directory holds one configuration and serves one process at a time."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import ml_collections
import pytest

from dgnet_jax.errors import InputError
from dgnet_jax.runtime import workdir

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def released(tmp_path):
    yield
    for folder in list(workdir._locks):
        workdir.unlock(folder)


def make_config(**changes) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(
        {
            "seed": 1,
            "total_steps": 100,
            "pretrained": None,
            "loss": {"name": "l1_rmse", "betas": (0.5, 0.999)},
            "evaluation": {"every": 10, "flip": True},
        }
    )
    config.update_from_flattened_dict(changes)
    return config


def test_the_effective_configuration_is_saved_and_read_back(tmp_path):
    folder = workdir.prepare(tmp_path / "runs" / "a", make_config(seed=5))
    assert json.loads((folder / "config.json").read_text())["seed"] == 5
    assert workdir.load_config(folder) == make_config(seed=5)
    assert sorted(entry.name for entry in folder.iterdir()) == [".lock", "config.json"]


def test_the_same_configuration_is_accepted_again(tmp_path):
    workdir.prepare(tmp_path, make_config())
    workdir.prepare(tmp_path, make_config())


def test_another_configuration_is_refused_with_both_values_of_what_differs(tmp_path):
    workdir.prepare(tmp_path, make_config())
    before = (tmp_path / "config.json").read_bytes()
    other = make_config(**{"loss.name": "huber", "loss.betas": (0.0, 0.999)})
    other.extra = 3.5
    with pytest.raises(InputError) as caught:
        workdir.prepare(tmp_path, other)
    assert str(caught.value).splitlines()[:-1] == [
        f"{tmp_path} holds a run of another configuration:",
        "  loss.betas: [0.5, 0.999] there, [0.0, 0.999] now",
        '  loss.name: "l1_rmse" there, "huber" now',
        "  extra: absent there, 3.5 now",
    ]
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_that_is_older_than_a_field_had_its_default(tmp_path):
    workdir.prepare(tmp_path, make_config())
    newer = make_config()
    newer.evaluation.folds = 3
    defaults = newer.copy_and_resolve_references()
    with pytest.raises(InputError, match=r"evaluation\.folds: 3 there, 4 now"):
        newer.evaluation.folds = 4
        workdir.prepare(tmp_path, newer, defaults=defaults)
    workdir.prepare(tmp_path, defaults, defaults=defaults)
    assert workdir.load_config(tmp_path) == defaults


def test_fields_that_may_differ_are_updated(tmp_path):
    workdir.prepare(tmp_path, make_config())
    longer = make_config(**{"total_steps": 200, "evaluation.every": 5})
    with pytest.raises(InputError, match=r"evaluation\.every: 10 there, 5 now"):
        workdir.prepare(tmp_path, longer, may_differ=("total_steps", "eval"))
    workdir.prepare(tmp_path, longer, may_differ=("total_steps", "evaluation"))
    assert workdir.load_config(tmp_path) == longer


def test_a_field_that_cannot_be_saved_is_named(tmp_path):
    config = make_config()
    config.loss.function = print
    with pytest.raises(InputError, match=r"config\.loss\.function: <built-in function print>"):
        workdir.prepare(tmp_path, config)


def test_reading_what_is_not_a_work_directory_says_so(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        workdir.load_config(tmp_path / "absent")
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match=r"no config.json in it.*photo.jpg"):
        workdir.load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(InputError, match=r"config.json: not valid JSON"):
        workdir.load_config(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="valid dictionary, found \\[1\\]"):
        workdir.load_config(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("null", "valid dictionary, found None"),
        ('{"seed": 1e400}', "1e400 is no number"),
        ("[" * 100_000, "too deeply nested"),
        ('{"a":' * 900 + "1" + "}" * 900, "too deeply nested"),
        ('{"a.b": 1}', "dots in field names"),
        ('{"__class__": 1}', "__class__"),
    ],
)
def test_json_that_is_no_configuration_is_named(tmp_path, content, found):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=rf"config\.json: .*{found}.* Restore it"):
        workdir.load_config(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    for path in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(InputError, match=r"taken.* is not a folder"):
            workdir.prepare(path, make_config())


def test_a_folder_in_use_is_refused_with_the_process_until_that_is_killed(tmp_path):
    program = f"""
import time, pathlib
from dgnet_jax.runtime import workdir
workdir.lock(pathlib.Path({str(tmp_path)!r}))
print("locked", flush=True)
time.sleep(60)
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=rf"another process .*pid {holder.pid} on "):
            workdir.prepare(tmp_path, make_config())
        assert not (tmp_path / "config.json").exists()
        holder.send_signal(signal.SIGKILL)
    finally:
        holder.kill()
        holder.communicate()
    workdir.prepare(tmp_path, make_config())
    assert f"pid {os.getpid()} on" in (tmp_path / ".lock").read_text()
