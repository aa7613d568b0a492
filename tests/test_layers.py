"""The package's modules import only downward; docs/architecture.md has the layers as a drawing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "dgnet_jax"
# From the bottom up: a module imports from its own layer and those before it. Names are modules or
# packages below dgnet_jax; the longest that fits decides.
LAYERS = (
    ("errors", "runtime.atomic", "runtime.paths", "runtime.reading", "runtime.threads"),
    ("losses",),
    ("data",),
    ("models",),
    ("figures",),
    ("runtime",),
    ("config", "config_fields", "config_kinds"),
    ("convert",),
    ("inference",),
    ("evaluation",),
    ("generate",),
    ("training",),
    ("ablation",),
    ("export",),
    ("command_line", "fid", "demo"),
)
# Commands of packages are the top layer, wherever they lie.
COMMAND = "__main__"


def _modules() -> dict[str, Path]:
    """Names below the package to files; a package is its __init__, the whole one is ""."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _layer(name: str) -> int:
    if name.rpartition(".")[2] == COMMAND:
        return len(LAYERS) - 1
    fitting = [
        (len(prefix), index)
        for index, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if name == prefix or name.startswith(f"{prefix}.")
    ]
    assert fitting, f"{name}: in no layer; add it to LAYERS"
    return max(fitting)[1]


def imports_of(path: Path) -> set[str]:
    """The package's modules that a file imports, anywhere in it, the whole package aside."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.partition(".")[0] != PACKAGE:
                continue
            below = name.partition(".")[2]
            while below not in MODULES:
                below = below.rpartition(".")[0]
            found.add(below)
    return found - {""}


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_imports_only_downward(name: str) -> None:
    upward = {other for other in imports_of(MODULES[name]) if _layer(other) > _layer(name)}
    assert not upward, f"{MODULES[name]} imports upward: {sorted(upward)}"


@pytest.mark.parametrize("name", list(MODULES))
def test_does_not_import_the_checkouts_own_packages(name: str) -> None:
    """`configs`, `tests` and `benchmarks` are not installed; a user may have such packages."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    tops = {module.partition(".")[0] for module in imported}
    assert not tops & {"configs", "tests", "benchmarks", "launch"}


def test_the_check_sees_an_upward_import(tmp_path: Path) -> None:
    file = tmp_path / "low.py"
    file.write_text("def f():\n    from dgnet_jax.training import loop\n", encoding="utf-8")
    assert imports_of(file) == {"training.loop"}
    assert _layer("training.loop") > _layer("data.sampling")
    assert _layer("runtime.atomic") < _layer("data") < _layer("runtime.devices")


def test_a_users_own_configs_package_is_not_in_the_way(tmp_path: Path) -> None:
    """As in a project that has installed this package and keeps its own configurations."""
    (tmp_path / PACKAGE).symlink_to(ROOT / PACKAGE)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    modules = "dgnet_jax.training.trainer, dgnet_jax.ablation.study, dgnet_jax.command_line"
    for command in (
        ["-c", f"import {modules}; import dgnet_jax; dgnet_jax.train; print(dgnet_jax.__file__)"],
        ["-m", "dgnet_jax.convert", "--help"],
        ["-m", "dgnet_jax.export", "--help"],
    ):
        found = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, found.stderr


def test_a_training_does_not_import_torch() -> None:
    """It takes seconds where it is there, for `dgnet_jax.convert`; who wants it still gets it."""
    wanted = "import sys, dgnet_jax.training.trainer; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", wanted], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "False\n"
