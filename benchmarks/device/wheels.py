"""The wheels that a machine without package index lacks.

Which packages it has already is a file of names, a line each, as `pip list --format=freeze` there
prints them (versions are ignored).
"""

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dgnet_jax.errors import InputError

# Only prepared data sets (`dgnet_jax.data.prepare`) need these: they are imported where such a one
# is read, which a lease does not do.
LEFT_OUT = ("array_record", "importlib_resources", "tensorflow-datasets")
# The machine's: what markers in requirements are evaluated with.
_ENVIRONMENT = {
    "python_version": "3.12",
    "python_full_version": "3.12.3",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "extra": "",
}
_PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)


def read_requirements(file: Path) -> list[str]:
    """The lines of a requirements file, without comments and options."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    cleaned = (line.split("#", 1)[0].strip() for line in lines)
    return [line for line in cleaned if line and not line.startswith("-")]


def read_names(file: Path) -> set[str]:
    """The canonical names of the packages in a list."""
    names = (re.split(r"[=<>!~\[; @]", line, maxsplit=1)[0] for line in read_requirements(file))
    return {canonicalize_name(name) for name in names if name}


def missing_packages(
    requirements: Iterable[str], present: set[str], needs: Callable[[Requirement], list[str]]
) -> list[str]:
    """Canonical names of what has to be brought: the requirements and all that they need.

    Args:
        requirements: such as "optax>=0.2.8; sys_platform == 'linux'".
        present: canonical names of what is there; versions are not compared.
        needs: a missing requirement to its own requirements.
    """
    left_out = {canonicalize_name(name) for name in LEFT_OUT}
    waiting = [Requirement(line) for line in requirements]
    found: list[str] = []
    while waiting:
        requirement = waiting.pop(0)
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate(_ENVIRONMENT):
            continue
        if name in present or name in found or name in left_out:
            continue
        found.append(name)
        waiting += [Requirement(line) for line in needs(requirement)]
    return found


def wheel_requirements(wheel: Path) -> list[str]:
    """Requires-Dist of a wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode("utf-8"))
    return metadata.get_all("Requires-Dist") or []


def download_missing(requirements: Iterable[str], present: set[str], folder: Path) -> list[str]:
    """Downloads wheels for Python 3.12 on x86-64 Linux into a folder; returns their packages.

    Raises:
        InputError: pip finds no wheel; says what pip said.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def download(requirement: Requirement) -> list[str]:
        before = set(folder.glob("*.whl"))
        asked = f"{requirement.name}{requirement.specifier}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version=3.12", "--implementation=cp"]
        command += [f"--platform={name}" for name in _PLATFORMS]
        done = subprocess.run(
            [*command, f"--dest={folder}", asked], capture_output=True, text=True, timeout=600
        )
        new = set(folder.glob("*.whl")) - before
        if done.returncode or not new:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise InputError(
                f"--wheels: pip found no wheel of {asked} for Python 3.12 on x86-64 Linux "
                f"({' '.join(said) or done.stderr.strip()[-300:]})"
            )
        return wheel_requirements(new.pop())

    return missing_packages(requirements, present, download)
