"""The longest kernels of a `jax.profiler` trace, as text; no TensorFlow.

    python -m benchmarks.device.trace TRACE_FOLDER [--out FILE] [--count 10]

reads the newest `*.trace.json.gz` below a folder. On a GPU the kernels are what its streams ran, on
a CPU the operations of XLA's programs.
"""

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Kernel(NamedTuple):
    """A kernel's name, the number of its runs, and their milliseconds together."""

    name: str
    runs: int
    milliseconds: float


class Kernels(NamedTuple):
    """longest: kernels; total and span: milliseconds of all kernels, and from first to last.

    What runs at the same time counts twice in `total`.
    """

    longest: list[Kernel]
    total: float
    span: float


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events of the newest trace below a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    files = sorted(folder.rglob("*.trace.json.gz"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f"{folder}: no *.trace.json.gz in it; was anything traced?")
    with gzip.open(files[-1], "rt", encoding="utf-8") as stream:
        return json.load(stream)["traceEvents"]


def longest_kernels(events: Sequence[dict[str, Any]], count: int = 10) -> Kernels:
    """Adds up the runs of each kernel; times in the trace are microseconds."""
    names: dict[str, dict[Any, str]] = {"process_name": {}, "thread_name": {}}
    for event in events:
        if event.get("ph") == "M" and event.get("name") in names:
            key = (event["pid"], event.get("tid"))
            if event["name"] == "process_name":
                key = event["pid"]
            names[event["name"]][key] = event["args"]["name"]
    devices = {pid for pid, name in names["process_name"].items() if "/device:" in name}

    def is_kernel(event: dict[str, Any]) -> bool:
        if event.get("ph") != "X":
            return False
        if not devices:
            return "hlo_op" in event.get("args", {})
        # Beside its streams a device has lines of whole programs and steps, which hold the same.
        thread = names["thread_name"].get((event["pid"], event.get("tid")), "")
        return event["pid"] in devices and (thread.startswith("Stream") or thread == "XLA Ops")

    kernels = [event for event in events if is_kernel(event)]
    durations: dict[str, list[float]] = defaultdict(list)
    for event in kernels:
        durations[event["name"]].append(event.get("dur", 0.0) / 1e3)
    found = [Kernel(name, len(times), sum(times)) for name, times in durations.items()]
    found.sort(key=lambda kernel: -kernel.milliseconds)
    ends = [event["ts"] + event.get("dur", 0.0) for event in kernels]
    span = (max(ends) - min(event["ts"] for event in kernels)) / 1e3 if kernels else 0.0
    return Kernels(found[:count], sum(kernel.milliseconds for kernel in found), span)


def as_text(kernels: Kernels) -> str:
    """A line a kernel: milliseconds, share of all kernels, runs, name."""
    lines = [f"{kernels.total:.2f} ms of kernels in {kernels.span:.2f} ms"]
    for kernel in kernels.longest:
        share = kernel.milliseconds / kernels.total
        lines.append(f"{kernel.milliseconds:9.3f} ms {share:6.1%} {kernel.runs:5d} x {kernel.name}")
    return "\n".join(lines)


def main() -> None:
    """The command: the text to a file, the same as one JSON line to standard output."""
    parser = argparse.ArgumentParser("python -m benchmarks.device.trace", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="a text file")
    parser.add_argument("--count", type=int, default=10, help="kernels (default: 10)")
    arguments = parser.parse_args()
    try:
        kernels = longest_kernels(read_events(arguments.folder), arguments.count)
    except (OSError, ValueError, KeyError) as error:
        parser.exit(1, f"error: {arguments.folder}: {error}\n")
    if not kernels.longest:
        parser.exit(1, f"error: {arguments.folder}: the trace holds no kernel\n")
    if arguments.out:
        arguments.out.write_text(as_text(kernels) + "\n", encoding="utf-8")
    row = {
        "kernel_ms": round(kernels.total, 3),
        "span_ms": round(kernels.span, 3),
        "longest": [
            {"name": name[:120], "runs": runs, "ms": round(milliseconds, 3)}
            for name, runs, milliseconds in kernels.longest
        ],
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
