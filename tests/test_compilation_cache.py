"""The compilation cache is on by default, and the user's own settings of jax stay."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import REPOSITORY

# Prints every setting of jax, before and after.
PROGRAM = """
import json
import jax
from dgnet_jax.runtime.devices import use_compilation_cache
before = dict(jax.config.values)
use_compilation_cache()
changed = {n: v for n, v in jax.config.values.items() if v != before[n]}
print(json.dumps([changed, before["jax_persistent_cache_min_compile_time_secs"]]))
"""


def settings(home: Path, **given: str) -> list:
    """The settings of jax that `use_compilation_cache` changes, and one that it leaves."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(home), **given}
    return json.loads(
        subprocess.check_output(
            [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, env=environment, text=True
        )
    )


@pytest.mark.parametrize(
    ("given", "kept_from"),
    [
        ({}, 1.0),
        ({"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "7.5"}, 7.5),
        ({"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}, 0.0),
    ],
)
def test_the_folder_alone_is_set(tmp_path, given, kept_from):
    folder = {"jax_compilation_cache_dir": str(tmp_path / "dgnet_jax" / "xla")}
    assert settings(tmp_path, **given) == [folder, kept_from]


@pytest.mark.parametrize("folder", ["", "elsewhere"])
def test_a_folder_of_the_users_own_stays(tmp_path, folder):
    assert settings(tmp_path, JAX_COMPILATION_CACHE_DIR=folder)[0] == {}
