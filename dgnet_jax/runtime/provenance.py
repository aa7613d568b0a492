"""What a result was made with: versions, commit, devices, and when."""

import platform
import subprocess
import zlib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

import dgnet_jax

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy")


def package_versions(*names: str) -> dict[str, str]:
    """Of this package and of others, which have to be installed."""
    return {"dgnet_jax": dgnet_jax.__version__, **{name: version(name) for name in names}}


def versions() -> dict[str, str]:
    """Of this package, of Python, and of the packages that a result may depend on."""
    found = package_versions(*_PACKAGES)
    return {"dgnet_jax": found.pop("dgnet_jax"), "python": platform.python_version(), **found}


def device() -> str:
    """The devices of all processes, such as "8 x TPU v5 lite"."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def checksum(tree: Any) -> int:
    """CRC-32 over the bytes of all arrays of a tree, in its order: what tells weights apart."""
    value = 0
    for leaf in jax.tree.leaves(tree):
        value = zlib.crc32(np.ascontiguousarray(leaf).data, value)
    return value


def now() -> str:
    """This second in UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def git_commit() -> str | None:
    """The commit of the checkout that this package lies in, with "-dirty" if it has changes.

    None for an installed package, even one inside another project's checkout.
    """
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        changes = git("status", "--porcelain", "--untracked-files=no", ".")
        return git("rev-parse", "HEAD") + ("-dirty" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def provenance(commit: str | None) -> dict[str, Any]:
    """What a result was made with, and when: fields of `ablation.results.FIELDS`.

    Args:
        commit: `git_commit()` when the process began: the checkout may have changed since.
    """
    return {
        "versions": versions(),
        "git_commit": commit,
        "device": device(),
        "date": now(),
    }
