"""What all tests share.

The check of shapes and types in signatures; where real data is; what is compiled once; and which
tests may be skipped.
"""

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jaxtyping
import pytest
from compilation import FAST_FLAGS

if TYPE_CHECKING:
    from processes import Launcher

ALLOWED_SKIPS = Path(__file__).parent / "allowed_skips.txt"
CACHE = "JAX_COMPILATION_CACHE_DIR"
# Files that take minutes, longest first: several processes begin with them, so that none is left
# with one at the end.
LONGEST = (
    "test_pmap.py",
    "test_ablation_resume.py",
    "test_resume.py",
    "test_parallel.py",
    "test_train_step.py",
    "test_search_run.py",
    "test_device_lease.py",
    "test_convert_files.py",
    "test_ablation_report.py",
    "test_generate_command.py",
    "test_accelerators.py",
    "test_first_process.py",
)

# Modules and packages whose functions say the shapes of their arrays. The annotations of all their
# functions are checked at each call, under a transformation when it is traced; an int is a float,
# as PEP 484 has it. Processes that tests start do not check, nor does a machine without beartype.
SHAPE_CHECKED = (
    "dgnet_jax.losses",
    "dgnet_jax.data.augment",
    "dgnet_jax.models",
    "dgnet_jax.training.objective",
    "dgnet_jax.training.passes",
    "dgnet_jax.training.train_step",
    "dgnet_jax.evaluation",
)
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

_early = [name for name in sys.modules if name.startswith(SHAPE_CHECKED)]
assert not _early, f"imported before the check of shapes could be installed: {_early}"
if importlib.util.find_spec("beartype"):
    jaxtyping.install_import_hook(SHAPE_CHECKED, _CHECKER)


def _process_wide() -> dict[str, object]:
    """What a test could change for the tests after it in the same process."""
    handlers = {sign.name: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    # pytest's own, of the phase that the test is in.
    variables = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    return {
        "folder": os.getcwd(),
        "umask": _umask(),
        "x64": jax.config.read("jax_enable_x64"),
        **handlers,
        **variables,
    }


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@pytest.fixture(autouse=True)
def leaves_no_trace() -> Iterator[None]:
    """Which tests run before a test, and by which worker, does not change its result.

    A study registers its user's losses for as long as the process lives: here, for the test. What
    else is process-wide, a test leaves as it was.
    """
    # Imported here: the check of shapes comes first.
    from dgnet_jax import losses

    before = _process_wide()
    with pytest.MonkeyPatch.context() as for_the_test:
        for_the_test.setattr(losses.registry, "DEFINITIONS", dict(losses.registry.DEFINITIONS))
        yield
    after = _process_wide()
    changed = {
        name: (before.get(name), after.get(name))
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }
    assert not changed, f"left behind for other tests, as (before, after): {changed}"


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Lets wrong arguments through to the functions, whose own errors a test is about."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def float64() -> Iterator[None]:
    """JAX's 64-bit mode, for comparison with closed forms."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> "Launcher":
    """Starts runs of launch.py on a drawn data set."""
    # Imported here: it imports the package.
    from processes import Launcher

    return Launcher(tmp_path_factory)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and reference files beside the checkout, or a skip."""
    folder = Path(os.environ.get("DGNET_SHARED") or Path(__file__).parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"no reference folder at {folder}; DGNET_SHARED names another")
    return folder


@pytest.fixture(scope="session")
def market_zip(shared: Path) -> Path:
    """The zip of the real Market-1501, or a skip."""
    archive = shared / "data" / "Market-1501-v15.09.15.zip"
    if not archive.is_file():
        pytest.skip(f"no {archive}: Market-1501 is for research only and not part of this project")
    return archive


class AllowedSkip(NamedTuple):
    """A line of allowed_skips.txt: `tests` and `reason` are patterns with *, ? and [...]."""

    tests: str
    reason: str
    when: str

    def covers(self, test: str, reason: str, absent: list[str]) -> bool:
        """Whether the skip of `test` for `reason` is this one, where `absent` is missing."""
        condition = self.when == "always" or self.when.removeprefix("without ") in absent
        return condition and fnmatchcase(test, self.tests) and fnmatchcase(reason, self.reason)


def read_allowed_skips(text: str) -> list[AllowedSkip]:
    """The lines of allowed_skips.txt; raises ValueError for one of another form."""
    found = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split(" | ")]
        if len(fields) != 3 or not (fields[2] == "always" or fields[2].startswith("without ")):
            raise ValueError(f"{line!r} is not TESTS | REASON | always, or without NAME")
        found.append(AllowedSkip(*fields))
    return found


class Skips:
    """Fails a run in which a test was skipped that the list does not allow."""

    def __init__(self, allowed: list[AllowedSkip], absent: list[str]) -> None:
        self._allowed = allowed
        self._absent = absent
        self.others: list[tuple[str, str]] = []

    def _look(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        reason = reason.removeprefix("Skipped: ")
        if not any(
            allowed.covers(report.nodeid, reason, self._absent) for allowed in self._allowed
        ):
            self.others.append((report.nodeid, reason))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._look(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.others and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.others:
            terminalreporter.section("skips that tests/allowed_skips.txt does not list", red=True)
            for test, reason in self.others:
                terminalreporter.write_line(f"{test}: {reason}")


class FileTimes:
    """Prints how long the tests of each file took, with their fixtures."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid.partition("::")[0]] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("seconds by file")
        for file, seconds in sorted(self._seconds.items(), key=lambda item: -item[1]):
            terminalreporter.write_line(f"{seconds:8.1f} {file}")
        terminalreporter.write_line(f"{sum(self._seconds.values()):8.1f} in all")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dgnet_jax")
    group.addoption(
        "--strict-skips",
        action="store_true",
        help="fail where a test is skipped that tests/allowed_skips.txt does not list",
    )
    group.addoption(
        "--absent",
        action="append",
        default=[],
        metavar="NAME",
        help="with --strict-skips: a thing that is not there, such as shared or chromium",
    )
    group.addoption(
        "--fast-compilation",
        action="store_true",
        help="compile as tests/compilation.py says, also where a test does not say how",
    )
    group.addoption("--file-times", action="store_true", help="seconds of the tests of each file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


def pytest_configure(config: pytest.Config) -> None:
    # tensorboardX sets this where it is first imported, which is in the middle of some test.
    os.environ.setdefault("CRC32C_SW_MODE", "auto")
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist: its reports go to the first
        return
    if config.option.strict_skips:
        allowed = read_allowed_skips(ALLOWED_SKIPS.read_text())
        config.pluginmanager.register(Skips(allowed, config.option.absent))
    if config.option.file_times:
        config.pluginmanager.register(FileTimes())
    if config.option.fast_compilation:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_FLAGS}"
    # One cache of compiled programs for this process, its workers and all that tests start.
    if CACHE not in os.environ:
        folder = tempfile.mkdtemp(prefix="dgnet_jax_compiled_")
        os.environ[CACHE] = folder
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

        def remove() -> None:
            del os.environ[CACHE]
            shutil.rmtree(folder, ignore_errors=True)

        config.add_cleanup(remove)
