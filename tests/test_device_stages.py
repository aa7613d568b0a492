"""Stages of a lease: one that fails, hangs or crashes does not stop the next; traces as text."""

import gzip
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks.device import trace
from benchmarks.device.stages import Results, Stage, run_in_turns, run_stage


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results((tmp_path / "results.jsonl",), tmp_path / "log.txt")


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_each_ends_in_its_own_way_and_the_next_one_runs(results: Results, tmp_path: Path) -> None:
    # It starts a child, ignores SIGTERM and never ends: both have to be gone afterwards.
    hangs = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('{\"measured\": 1}', flush=True)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    stages = [
        Stage(
            "fails", [script("print('no card'); raise SystemExit(3)"), script("print('{}')")], 60
        ),
        Stage("hangs", [script(hangs)], 3),
        Stage("crashes", [script("import os; os.abort()")], 60),
        Stage("missing", [["/no/such/program"]], 60),
        Stage("works", [script("print('words'); print('{\"x\": 2}')")], 60),
    ]
    statuses = [run_stage(stage, results, tmp_path) for stage in stages]
    assert statuses == ["failed", "timeout", "failed", "failed", "ok"]

    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert rows == results.rows
    ends = {row["stage"]: row for row in rows if "status" in row}
    assert ends["fails"]["exit_code"] == 3 and ends["fails"]["tail"] == ["no card"]
    # Its second command did not run.
    assert results.of("fails") == {}
    # What was measured before is out.
    assert results.of("hangs") == {"stage": "hangs", "measured": 1}
    assert results.of("works") == {"stage": "works", "x": 2}
    assert "works: words" in (tmp_path / "log.txt").read_text()
    child = Path("/proc") / (tmp_path / "child").read_text()
    state = child.joinpath("stat").read_text().split()[2] if child.exists() else "gone"
    assert state in ("gone", "Z")


def test_without_time_a_stage_is_skipped(results: Results, tmp_path: Path) -> None:
    late = Stage("late", [script("print('{}')")], 60)
    assert run_stage(late, results, tmp_path, until=time.monotonic()) == "skipped"
    assert [row["status"] for row in results.rows] == ["skipped"]


def test_in_turns_each_waits_until_all_are_ready_and_then_is_alone(
    results: Results, tmp_path: Path
) -> None:
    def waits(name: str) -> Stage:
        text = (
            "import json, os, time\n"
            "print('{\"ready\": true}', flush=True)\n"
            f"while not os.path.exists({str(tmp_path / name)!r}): time.sleep(0.01)\n"
            "started = time.monotonic(); time.sleep(0.3)\n"
            "print(json.dumps({'started': started, 'ended': time.monotonic()}))"
        )
        return Stage(name, [script(text)], 60)

    beside = Stage(
        "beside",
        [script("import time; time.sleep(1); print('{\"now\": %r}' % time.monotonic())")],
        60,
    )
    never = Stage("never ready", [script("import time; time.sleep(600)")], 2)
    stuck = Stage(
        "stuck",
        [script("import time; print('{\"ready\": true}', flush=True); time.sleep(600)")],
        60,
    )
    stages = [waits("first"), never, stuck, waits("second")]
    files = [tmp_path / name for name in ("first", "never", "stuck", "second")]
    pairs = [(beside, None), *zip(stages, files, strict=True)]
    run_in_turns(pairs, 3, results, tmp_path, at_once=5)

    ends = {row["stage"]: row["status"] for row in results.rows if "status" in row}
    assert ends == {
        "beside": "ok",
        "first": "ok",
        "never ready": "timeout",
        "stuck": "timeout",
        "second": "ok",
    }
    first, second = results.of("first"), results.of("second")
    assert results.of("beside")["now"] <= first["started"]
    assert first["ended"] <= second["started"]


def test_only_some_prepare_themselves_at_once_and_the_late_ones_end(
    results: Results, tmp_path: Path
) -> None:
    def prepares(name: str, seconds: float) -> Stage:
        text = (
            "import json, os, time\n"
            f"started = time.monotonic(); time.sleep({seconds})\n"
            "print(json.dumps({'ready': True, 'from': started, 'to': time.monotonic()}))\n"
            f"while not os.path.exists({str(tmp_path / name)!r}): time.sleep(0.01)\n"
        )
        return Stage(name, [[*script(text)[:1], "-u", *script(text)[1:]]], 60)

    seconds = {"first": 0.5, "second": 0.5, "third": 0.5, "late": 60}
    stages = [(prepares(name, value), tmp_path / name) for name, value in seconds.items()]
    late = time.monotonic() + 6
    run_in_turns(stages, 5, results, tmp_path, at_once=2, ready_until=late)

    ends = {row["stage"]: row["status"] for row in results.rows if "status" in row}
    assert ends == {"first": "ok", "second": "ok", "third": "ok", "late": "timeout"}
    others = results.of("first")["to"], results.of("second")["to"]
    assert min(others) <= results.of("third")["from"]


def event(name: str, pid: int, tid: int, start: float, duration: float) -> dict:
    return {"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": start, "dur": duration}


def named(kind: str, name: str, pid: int, tid: int | None = None) -> dict:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def test_kernels_of_a_gpu_are_those_of_its_streams() -> None:
    events = [
        named("process_name", "/device:GPU:0", 1),
        named("process_name", "/host:CPU", 7),
        named("thread_name", "Stream #20(Compute)", 1, 20),
        named("thread_name", "XLA Modules", 1, 30),
        event("jit_step", 1, 30, 0, 9000),
        event("convolution", 1, 20, 1000, 2000),
        event("fusion", 1, 20, 3000, 500),
        event("convolution", 1, 20, 4000, 1000),
        {**event("dot", 7, 1, 0, 5000), "args": {"hlo_op": "dot"}},
    ]
    kernels = trace.longest_kernels(events)
    assert kernels.longest == [("convolution", 2, 3.0), ("fusion", 1, 0.5)]
    assert (kernels.total, kernels.span) == (3.5, 4.0)
    assert trace.as_text(kernels).splitlines() == [
        "3.50 ms of kernels in 4.00 ms",
        "    3.000 ms  85.7%     2 x convolution",
        "    0.500 ms  14.3%     1 x fusion",
    ]
    assert len(trace.longest_kernels(events, 1).longest) == 1


def test_a_trace_written_by_jax_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two products, of which one is 64 times the other.
    small, large = jnp.ones((128, 128)), jnp.ones((512, 512))
    compute = jax.jit(lambda a, b: (jnp.sin(a) @ a, jnp.sin(b) @ b)).lower(small, large).compile()
    jax.block_until_ready(compute(small, large))
    with jax.profiler.trace(str(tmp_path)):
        jax.block_until_ready(compute(small, large))
    text = tmp_path / "profile.txt"
    monkeypatch.setattr(sys, "argv", ["trace", str(tmp_path), f"--out={text}", "--count=2"])
    trace.main()
    row = json.loads(capsys.readouterr().out)
    assert len(row["longest"]) == 2
    assert 0 < row["longest"][1]["ms"] <= row["longest"][0]["ms"] <= row["kernel_ms"]
    assert len(text.read_text().splitlines()) == 3


def test_a_trace_without_kernels_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["trace", str(tmp_path)])
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            trace.main()
        assert ended.value.code == 1
        with gzip.open(tmp_path / "x.trace.json.gz", "wt") as stream:
            json.dump({"traceEvents": []}, stream)
    said = capsys.readouterr().err
    assert "was anything traced?" in said and "holds no kernel" in said
