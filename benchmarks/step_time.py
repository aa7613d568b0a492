"""Times a training step: compilation, step, images/s, FLOP, peak memory, share of the data.

    python benchmarks/step_time.py --config=configs/market.py:l1_rmse --batch=2 --steps=3

runs the compiled step of a config on random images, with every loss active (or, with --phase=start,
as before the ramps), and prints one JSON line. The figures are of a step on the host's clock,
device synchronised; `gather` is what preparing the next batch costs, which training overlaps.
`tflop` counts the convolutions and matmuls of the traced program (`flops.py`).

Variants: --scan=K puts K steps into one dispatch, --upsample chooses a form of the decoder's
upsampling convolution, --stage=teacher takes the teacher's step. --steps=0 only compiles: with
JAX_COMPILATION_CACHE_DIR set, another start with the same flags then finds the program there, and
so does a training with the same configuration (--scan and --upsample aside) and as many identities.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.flops import count_flops
from dgnet_jax.data.pipeline import gather_labelled, gather_pairs
from dgnet_jax.data.sampling import ClassificationSampler, PairSampler
from dgnet_jax.models import blocks, build_networks, build_teacher
from dgnet_jax.training import teacher as teacher_stage
from dgnet_jax.training.schedules import ramp_start
from dgnet_jax.training.session import Session, make_train_step, run_inputs
from dgnet_jax.training.train_step import active_terms
from dgnet_jax.training.trainer import initial_state

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with its variant.")
_BATCH = flags.DEFINE_integer("batch", None, "Images per direction; the config's by default.")
_DTYPE = flags.DEFINE_string("dtype", None, "float32 or bfloat16; the config's by default.")
_STEPS = flags.DEFINE_integer(
    "steps", 5, "Timed steps (dispatches), after one that is not; 0 compiles only.", lower_bound=0
)
_STAGE = flags.DEFINE_enum("stage", "dgnet", ["dgnet", "teacher"], "Whose step.")
_PHASE = flags.DEFINE_enum("phase", "full", ["start", "full"], "Before or after the ramps.")
_SCAN = flags.DEFINE_integer("scan", 1, "Steps of DG-Net in one dispatch.", lower_bound=1)
_UPSAMPLE = flags.DEFINE_enum(
    "upsample",
    None,
    ["phases", "plain"],
    "All convolutions in the plain form of accelerators, but the decoder's upsampling one as four "
    "phases of 3x3, or it too (repeat, reflect, 5x5); by default as the platform has them.",
)
_TURN = flags.DEFINE_string(
    "turn", None, "Once compiled, a line with ready: true, and a wait until this file is there."
)
_REQUIRE_ACCELERATOR = flags.DEFINE_bool(
    "require_accelerator", False, "End with an error where there is neither a GPU nor a TPU."
)
_IDENTITIES = flags.DEFINE_integer("identities", 751, "Of the training set.", lower_bound=2)
_TRACE = flags.DEFINE_string("trace", None, "A folder for a jax.profiler trace of one step.")
_CACHED_IMAGES = 512
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


class Program(NamedTuple):
    """A step to time.

    Attributes:
        step: compiled for all devices, (state, *rest) -> (state, losses); the state is donated.
        state: on the device.
        rest: number of a dispatch -> the other arguments, on the device.
        images: real images that one dispatch learns from.
    """

    step: Any
    state: Any
    rest: Callable[[int], tuple[Any, ...]]
    images: int


def dgnet_program(config: ml_collections.ConfigDict) -> Program:
    """The step of DG-Net as training compiles it, or several of them in one dispatch."""
    session = Session(config)
    session.networks = build_networks(config, _IDENTITIES.value)
    placement, networks, size = session.placement, session.networks, config.batch_size
    placement.check_batch("batch_size", size)
    blank = jnp.zeros((2, config.data.height, config.data.width, 3))
    teacher = placement.compile_init(networks.teacher.init)(jax.random.key(0), blank)
    state = initial_state(config, networks, session.optimizers, None, placement)
    # Past every ramp and before the first milestone, so that each term has its full weight.
    ramp_steps = int(2 * max(config.weights.teacher, config.weights.cycle) / config.ramp.scale)
    latest = max(ramp_start(config.ramp, "cycle"), ramp_start(config.ramp, "teacher"))
    start = 0 if _PHASE.value == "start" else latest + ramp_steps
    state = replace(state, step=placement.put_state(jnp.asarray(start, jnp.int32)))
    images, labels = _random_data(config)
    sampler = PairSampler(labels, size, 0)
    run = placement.put_state(run_inputs(config))

    def batch(step: int) -> Any:
        chosen = sampler.batch(step)
        return placement.put_batch(size, lambda rows: gather_pairs(images, chosen[rows]))

    count = _SCAN.value
    if count == 1:
        step = session.step(config, start)
        return Program(step, state, lambda index: (teacher, batch(index), run), 2 * size)

    one = make_train_step(config, networks, session.optimizers, active_terms(config, start))

    def several(state: Any, teacher: Any, batches: Any, run: Any) -> Any:
        state, losses = jax.lax.scan(lambda s, b: one(s, teacher, b, run), state, batches)
        return state, jax.tree.map(lambda values: values[-1], losses)

    stacked = NamedSharding(placement.mesh, PartitionSpec(None, *placement.sharded.spec))
    stack = jax.jit(lambda *parts: jax.tree.map(lambda *p: jnp.stack(p), *parts))
    replicated = placement.replicated
    step = jax.jit(
        several,
        in_shardings=(replicated, replicated, stacked, replicated),
        out_shardings=replicated,
        donate_argnums=0,
    )

    def batches(index: int) -> tuple[Any, ...]:
        parts = [batch(number) for number in range(index * count, (index + 1) * count)]
        return teacher, jax.device_put(stack(*parts), stacked), run

    return Program(step, state, batches, 2 * size * count)


def teacher_program(config: ml_collections.ConfigDict) -> Program:
    """The step of the teacher as training compiles it."""
    placement, size = Session(config).placement, config.teacher.batch_size
    placement.check_batch("teacher.batch_size", size)
    teacher = build_teacher(config, _IDENTITIES.value)
    optimizer = teacher_stage.make_optimizer(config)
    state = teacher_stage.init_teacher(config, teacher, optimizer, placement)
    images, labels = _random_data(config)
    sampler = ClassificationSampler(labels, size, 0)
    make = partial(teacher_stage.make_step, config, teacher, optimizer)
    step = placement.compile_step(make, arguments=2, batch_argument=1)

    def batch(step: int) -> tuple[Any, ...]:
        chosen = sampler.batch(step)
        return (placement.put_batch(size, lambda rows: gather_labelled(images, chosen[rows])),)

    return Program(step, state, batch, size)


def _random_data(config: ml_collections.ConfigDict) -> tuple[np.ndarray, np.ndarray]:
    """Images as the cache of decoded ones holds them, and their labels."""
    rng = np.random.default_rng(0)
    size = (config.data.cache_height, config.data.cache_width)
    images = rng.integers(0, 256, (_CACHED_IMAGES, *size, 3), np.uint8)
    return images, rng.integers(0, _IDENTITIES.value, _CACHED_IMAGES)


def choose_upsampling(form: str | None) -> None:
    """Makes all convolutions take the accelerators' form, the upsampling one that of `form`."""
    if form is None:
        return
    plainly = blocks._plainly

    def convolution(x: Any, kernel: Any, geometry: Any, forward_mode: bool = False) -> Any:
        if geometry.upsample and form == "phases":
            return blocks._upsample_by_phases(x, kernel)
        return plainly(x, kernel, geometry)

    for platform in ("_plainly", "_on_a_cpu"):
        setattr(blocks, platform, convolution)


def wait_for_turn(file: Path, compiled: dict[str, Any]) -> None:
    """Says that the program is compiled, and returns when the file is there."""
    print(json.dumps({"ready": True} | compiled), flush=True)
    while not file.exists():
        time.sleep(0.05)


def measure(program: Program, steps: int, trace: str | None, turn: str | None) -> dict[str, Any]:
    """Compiles a program, times its dispatches and traces one more."""
    hits: list[str] = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
    started = time.perf_counter()
    step, state, losses = program.step, program.state, {}
    result: dict[str, Any] = {}
    if hasattr(step, "trace"):
        traced = step.trace(state, *program.rest(0))
        lowered = traced.lower()
        result["trace_seconds"] = round(time.perf_counter() - started, 1)
        result["tflop"] = round(count_flops(traced.jaxpr.jaxpr) / 1e12, 6)
        started = time.perf_counter()
        step = lowered.compile()
    else:  # pmap compiles where it is called
        state, losses = jax.block_until_ready(step(state, *program.rest(0)))
    result["compile_seconds"] = round(time.perf_counter() - started, 1)
    result["from_cache"] = _CACHE_HIT in hits
    if turn:
        wait_for_turn(Path(turn), result)
    seconds, gathering = [], []
    for index in range(steps + 1 if steps else 0):
        started = time.perf_counter()
        rest = jax.block_until_ready(program.rest(index))
        gathered = time.perf_counter()
        state, losses = jax.block_until_ready(step(state, *rest))
        if index:
            gathering.append(gathered - started)
            seconds.append(time.perf_counter() - gathered)
    if not steps:
        return result
    if trace:
        rest = jax.block_until_ready(program.rest(0))
        with jax.profiler.trace(trace):
            jax.block_until_ready(step(state, *rest))
    median = statistics.median(seconds)
    if "tflop" in result:
        result["tflop_per_second"] = round(result["tflop"] / median, 4)
    return result | {
        "dispatch_seconds": round(median, 5),
        "dispatch_seconds_all": [round(value, 5) for value in seconds],
        "images_per_second": round(program.images / median, 2),
        "gather_share": round(statistics.median(gathering) / median, 4),
        "losses_finite": all(bool(np.isfinite(np.sum(value))) for value in losses.values()),
    }


def main(_: list[str]) -> None:
    if _REQUIRE_ACCELERATOR.value and jax.default_backend() == "cpu":
        sys.exit("error: --require_accelerator: jax found CPUs only")
    config = _CONFIG.value
    config.batch_size = _BATCH.value or config.batch_size
    config.dtype = _DTYPE.value or config.dtype
    config.appearance.init = "teacher"
    of_teacher = _STAGE.value == "teacher"
    if of_teacher and _BATCH.value:
        config.teacher.batch_size = _BATCH.value
    choose_upsampling(_UPSAMPLE.value)
    program = (teacher_program if of_teacher else dgnet_program)(config)
    result = measure(program, _STEPS.value, _TRACE.value, _TURN.value)
    device_memory = jax.devices()[0].memory_stats() or {}
    peak = device_memory.get("peak_bytes_in_use")
    count = 1 if of_teacher else _SCAN.value
    if "dispatch_seconds" in result:
        result["step_seconds"] = round(result["dispatch_seconds"] / count, 5)
    settings = {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "of": _STAGE.value,
        "image": [config.data.height, config.data.width],
        "batch": config.teacher.batch_size if of_teacher else config.batch_size,
        "dtype": config.dtype,
        "parallel": config.parallel,
        "phase": _PHASE.value,
        "steps_in_a_dispatch": count,
        "upsample": _UPSAMPLE.value or "as the platform has it",
        "peak_memory_gib": round(peak / 2**30, 2) if peak else None,
        "peak_host_memory_gib": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2
        ),
    }
    print(json.dumps(settings | result), flush=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
