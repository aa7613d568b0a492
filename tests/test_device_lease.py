"""A lease with tiny networks on a CPU: every stage in both calls; a training that is stopped."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from compilation import FAST_FLAGS
from PIL import Image
from processes import REPOSITORY, tiny_data

from benchmarks.device import lease, training
from benchmarks.device.presets import FULL, SMOKE
from benchmarks.device.smoke import smoke


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a lease sets for its stages is taken back."""
    names = (*lease.environment(tmp_path), "JAX_PLATFORMS", "XLA_FLAGS")
    for name in names:
        # Set before it is removed, so that monkeypatch knows the variable also where it is unset.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.slow
@pytest.mark.usefixtures("clean_environment")
def test_every_stage_reports_and_a_failing_one_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", FAST_FLAGS)
    out = tmp_path / "out"
    rows = smoke(tmp_path, out)
    ends = [(row["stage"], row["status"]) for row in rows if "status" in row]
    steps = {f"step {variant.name}": "ok" for variant in SMOKE.variants}
    steps["step no_such_field"] = "failed"
    assert dict(ends) == {
        "unpack": "ok",
        "machine": "ok",
        "tests": "ok",
        **steps,
        "profile": "ok",
        "train": "ok",
        "finish": "ok",
        "swap": "ok",
        "evaluation": "ok",
    }
    names = [name for name, _ in ends]
    assert names[:2] == ["unpack", "machine"]
    assert names[-6:-2] == ["profile", "train", "unpack", "finish"]
    kept = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert kept == rows

    found = {row["stage"]: row for row in rows if "status" not in row}
    assert found["machine"]["matmul_bfloat16_tflops"] > 0
    assert found["machine"]["copy_gb_per_second"] > 0
    assert found["tests"]["passed"] > 20 and not found["tests"]["failed"]
    step = found["step float32_b8"]
    assert step["losses_finite"] and len(step["dispatch_seconds_all"]) == SMOKE.timed
    assert step["images_per_second"] == pytest.approx(16 / step["dispatch_seconds"], rel=1e-3)
    assert step["share_of_matmul"] == pytest.approx(
        step["tflop_per_second"] / found["machine"]["matmul_float32_tflops"], abs=1e-3
    )
    assert found["profile"]["longest"][0]["ms"] > 0
    assert found["finish"]["how"] == "ended"
    flags = [flag for flag in found["train"]["flags"] if "config.total_steps" in flag]
    assert flags == [f"--config.total_steps={found['finish']['last']['dgnet']['step']}"]
    # The training compiled no step of its own: it found those that were timed.
    compiled = [file.name for file in (tmp_path / "work/xla").glob("jit_step-*-cache")]
    assert len(compiled) == 3
    # All queries and the gallery without junk: those of the second call, no stand-ins.
    assert found["evaluation"]["counts"] == {
        "queries": 12,
        "queries_without_match": 0,
        "gallery": 14,
        "junk": 2,
        "distractors": 2,
    }
    assert found["evaluation"]["ranking"][0]["name"] == "alpha 0.5"
    images = found["evaluation"]["generated_images"]
    assert images["generated"] == 16 and images["dims"] == 64 and images["fid_png"] > 0
    assert 0 <= images["identity_consistency"] <= 1

    # What the two calls bring back, each at most eight files.
    assert sorted(file.name for file in out.iterdir()) == [
        "evaluation.json",
        "log.txt",
        "metrics.jsonl",
        "profile.txt",
        "results.jsonl",
        "swap.jpg",
        "training.log",
        "training_swaps.jpg",
    ]
    with Image.open(out / "swap.jpg") as picture:
        assert picture.format == "JPEG" and min(picture.size) > 200


@pytest.mark.slow
def test_a_training_in_the_background_is_stopped_and_saves(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", FAST_FLAGS)
    flags = [
        "--config=tests/tiny.py",
        f"--config.data.root={tiny_data(tmp_path_factory)}",
        "--config.teacher.total_steps=1",
        "--config.total_steps=100000",
        # One program, and what takes time beside it is left out.
        "--config.ramp.start=1000",
        "--config.evaluation.every_steps=-1",
    ]
    started = training.start(tmp_path, flags, watch=1)
    assert started["running"]
    try:
        deadline = time.monotonic() + 900
        while "dgnet" not in training.last_rows(tmp_path / "run/metrics.jsonl"):
            assert training.is_running(started["pid"], tmp_path), training.tail(tmp_path)
            assert time.monotonic() < deadline, training.tail(tmp_path)
            time.sleep(0.5)
        found = training.finish(tmp_path, 0)
    finally:
        if training.is_running(started["pid"], tmp_path):
            os.kill(started["pid"], 9)
    assert found["how"] == "stopped by SIGTERM"
    done = found["last"]["dgnet"]["step"]
    assert f"stopped and saved at step {done} of the dgnet stage" in "\n".join(found["tail"])
    assert (tmp_path / f"run/dgnet/checkpoints/{done}").is_dir()


def test_a_training_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with pytest.raises(RuntimeError, match=r"launch.py ended with 1: .*--config has no such field"):
        training.start(tmp_path, ["--config=tests/tiny.py", "--config.no_such_field=1"], watch=300)
    with pytest.raises(RuntimeError, match="no training was started"):
        training.finish(tmp_path / "elsewhere", 0)


def test_ramps_and_milestones_keep_their_published_shares(tmp_path: Path) -> None:
    place = lease.Place(tmp_path, tmp_path, tmp_path)
    flags = dict(
        flag.removeprefix("--config.").split("=", 1)
        for flag in lease.training_flags(FULL, place)
        if flag.startswith("--config.")
    )
    # 30,000 + 4,000 of 100,000 steps until all losses have their full weights; cuts at 60 and 90 %.
    assert flags["total_steps"] == "2000"
    assert flags["ramp.start"] == "600"
    assert 2 / float(flags["ramp.scale"]) == pytest.approx(80, rel=1e-3)
    assert flags["optimizer.milestones"] == "(1200,1800)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["first", "--pack=nowhere", "--out=out"], "no pack there"),
        (["first", "--stages=machine"], "--out is missing"),
        (["second", "--out=out", "--stages=machine"], "machine: not of unpack, finish"),
    ],
)
def test_a_wrong_command_is_named_in_the_error(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        lease.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("clean_environment")
def test_without_time_for_a_wave_its_steps_are_skipped_and_say_why(tmp_path: Path) -> None:
    place = lease.Place(tmp_path / "work", tmp_path, tmp_path / "out")
    rows = lease.run_call("first", FULL, place, 100, ["tests", "steps"])
    assert [row["stage"] for row in rows] == [
        "tests",
        *(f"step {variant.name}" for variant in FULL.variants),
    ]
    for row in rows:
        assert row["status"] == "skipped"
        assert row["reason"] == "60 s are left for steps, a wave takes 200"


def test_without_its_accelerator_a_stage_of_the_full_lease_fails_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "")
    for name in lease.environment(tmp_path):
        monkeypatch.setenv(name, "")
    place = lease.Place(tmp_path / "work", tmp_path, tmp_path / "out")
    chosen = ["machine", "steps", "train"]
    one = replace(FULL, waves=(FULL.waves[0][:1],))
    rows = lease.run_call("first", one, place, 300, chosen)
    assert [(row["stage"], row["status"]) for row in rows] == [
        ("machine", "failed"),
        ("step bfloat16_b8", "failed"),
        ("train", "failed"),
    ]
    for row in rows:
        assert "jax found CPUs only" in "\n".join(row["tail"])
