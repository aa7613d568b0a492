"""Runs tests with pytest and prints one JSON line: how many passed, failed, were skipped.

    python -m benchmarks.device.checks tests/test_losses.py tests/test_ranking.py

The status is 1 if a test failed and also if none passed: a reference that was skipped because its
files are missing has shown nothing.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest


class _Counted:
    """A pytest plugin that counts outcomes and keeps the names of what failed or was skipped."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.named: dict[str, list[str]] = {"failed": [], "skipped": []}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        self.outcomes[report.outcome] += 1
        if report.outcome in self.named:
            self.named[report.outcome].append(report.nodeid)


def main(argv: Sequence[str]) -> int:
    """Runs pytest with these arguments."""
    counted = _Counted()
    started = time.perf_counter()
    code = pytest.main(["-q", "-p", "no:cacheprovider", *argv], plugins=[counted])
    import jax

    row = {
        "device": jax.devices()[0].device_kind,
        "matmul_precision": os.environ.get("JAX_DEFAULT_MATMUL_PRECISION", "default"),
        "tests": list(argv),
        "passed": counted.outcomes["passed"],
        "failed": counted.named["failed"],
        "skipped": counted.named["skipped"],
        "pytest_seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(row), flush=True)
    return 0 if code == 0 and counted.outcomes["passed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
