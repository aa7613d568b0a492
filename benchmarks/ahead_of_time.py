"""Compiles for TPUs on a plain CPU, and prints what the compiled programs hold.

    pip install -r requirements-tpu.txt   # Python 3.12
    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 python benchmarks/ahead_of_time.py \
        --config=configs/market.py:l1_rmse --chips=1,4,16 --dtypes=float32,bfloat16

No TPU is needed: the compiler runs from abstract shapes (`jax.experimental.topologies`). One JSON
line a program: memory and memory traffic for each chip, FLOPs beside what the networks need, and
every collective with its bytes. Programs: "step", every loss active; "start", the step before the
ramps; "embeddings", of evaluation; "repaint", a swap; "inception", FID's features.
"""

import json
import os
import re
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.flops import count_flops
from dgnet_jax.evaluation.extraction import _features
from dgnet_jax.models import Networks, build_networks
from dgnet_jax.models.forward import Forward
from dgnet_jax.models.inception import Inception
from dgnet_jax.runtime.devices import AXIS, Placement
from dgnet_jax.training.session import make_train_step, run_inputs
from dgnet_jax.training.state import blank_state, make_optimizers
from dgnet_jax.training.train_step import ActiveTerms

PROGRAMS = ("step", "start", "embeddings", "repaint", "inception")
_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with its variant.")
_CHIPS = flags.DEFINE_list("chips", ["4"], "Of a v5e slice: 1, 4, 8, 16, ...")
_DTYPES = flags.DEFINE_list("dtypes", ["float32"], "float32, bfloat16")
_PROGRAMS = flags.DEFINE_list("programs", ["step"], ", ".join(PROGRAMS))
_BATCH = flags.DEFINE_integer("batch", None, "Images per direction of the step, over all chips.")
_TEXT = flags.DEFINE_string("text", None, "A folder for the compiled programs' text.")
_IDENTITIES = 751
_SLICES = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8"}
_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8, "u64": 8}
_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
    "collective-broadcast",
)
# Other operations that cost time without computing anything.
_MOVES = ("scatter", "gather", "copy", "transpose", "conditional")
# name = type opcode(...); asynchronous ones count once, at their start.
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?\S+ = (\(.*?\)|\S+) ([\w-]+)\(")
_ARRAY = re.compile(r"\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]")


def tpu_placement(chips: int) -> Placement:
    """A placement over the chips of a v5e slice that is not there."""
    topology = topologies.get_topology_desc(
        platform="tpu",
        topology_name=f"v5e:{_SLICES[chips]}",
        **({"chips_per_host_bounds": (1, 1, 1)} if chips == 1 else {}),
    )
    mesh = Mesh(np.array(topology.devices[:chips]), (AXIS,), axis_types=(AxisType.Auto,))
    return Placement(
        mesh, NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS))
    )


def array_bytes(shapes: str) -> int:
    """The bytes of the arrays in an HLO type, such as "(f32[8,4]{1,0}, bf16[2])"."""
    total = 0
    for kind, dimensions in _ARRAY.findall(shapes):
        size = _BYTES.get(kind) or int(kind[1:]) // 8
        total += size * int(np.prod([int(n) for n in dimensions.split(",") if n], dtype=np.int64))
    return total


def operations(text: str) -> dict[str, dict[str, int]]:
    """Counts and bytes of collectives and moves in a compiled program's text."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for line in text.splitlines():
        if found := _INSTRUCTION.match(line):
            kind, opcode = found.groups()
            name = opcode.removesuffix("-start")
            if name in _COLLECTIVES or name in _MOVES:
                counts[name] += 1
                sizes[name] += array_bytes(kind)
    return {name: {"count": counts[name], "bytes": sizes[name]} for name in sorted(counts)}


def flops(function: Any, *arguments: Any) -> float:
    """Multiplications and additions of the convolutions and matmuls of a function, plainly done."""
    return count_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def needed_flops(config: ml_collections.ConfigDict, networks: Networks, step: bool) -> float:
    """What one step's convolutions and matmuls need, by the passes of docs/method.md, section 3.

    A pass backwards to the images or to the weights costs as much as the pass forwards. `step`:
    with every loss, not those before the ramps alone.
    """
    height, width, batch = config.data.height, config.data.width, config.batch_size
    image = jnp.zeros((1, height, width, 3))
    key = jax.random.key(0)

    def forward(module: Any, *arguments: Any) -> float:
        variables = jax.eval_shape(module.init, key, *arguments)
        return flops(lambda v: module.apply(v, *arguments), variables)

    structure = jnp.zeros((1, height // 4, width // 4, 8 * config.structure_encoder.dim))
    code = jnp.zeros((1, networks.appearance_encoder.code_size))
    e_s = forward(networks.structure_encoder, image)
    g = forward(networks.decoder, structure, code)
    e_a = forward(networks.appearance_encoder, image)
    d = forward(networks.discriminator, image)
    t = forward(networks.teacher, image)
    erasing = bool(config.augment.erasing_probability)
    cut = config.appearance.cut_gradient
    # E_a on real images: the passes without and with gradient.
    real_passes = 4 * ((1 if cut else 3) + 3 if erasing else 3)
    # Real images in D: forwards, to the image, along that gradient, and both of these backwards.
    d_passes = 2 * 3 + 2 * 7 + 2 * 2
    passes = {
        e_a: real_passes + 2 * 2,
        e_s: 2 * 3,
        g: 6 * 3,
        d: d_passes,
    }
    total = sum(cost * count for cost, count in passes.items())
    if step:
        total += e_s * 2 * 3 + g * 2 * 3 + t * 4 + e_a * 2 * 2
    return batch * total


def programs(
    config: ml_collections.ConfigDict, placement: Placement, names: list[str]
) -> dict[str, tuple[Any, tuple[Any, ...], float]]:
    """Compilable functions, their abstract arguments and the FLOPs they need, by name."""
    networks, optimizers = build_networks(config, _IDENTITIES), make_optimizers(config)
    key = jax.random.key(0)
    blank = partial(blank_state, config, networks, optimizers)
    state = placement.abstract(jax.eval_shape(blank, key))
    image = jnp.zeros((2, config.data.height, config.data.width, 3))
    teacher = placement.abstract(jax.eval_shape(networks.teacher.init, key, image))
    size = (config.data.cache_height, config.data.cache_width, 3)

    def rows(*shape: int, dtype: Any = jnp.uint8) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=placement.sharded)

    batch = {
        "images": rows(config.batch_size, 4, *size),
        "labels": rows(config.batch_size, 2, dtype=jnp.int32),
    }
    run = placement.abstract(run_inputs(config))
    forward = Forward(networks, config.data.height, config.data.width)
    appearance = {"params": state.appearance, "batch_stats": state.appearance_stats}
    count = placement.round_up("evaluation.batch_size", config.evaluation.batch_size)
    images = rows(count, *size)
    codes = rows(count, networks.appearance_encoder.code_size, dtype=jnp.float32)
    found: dict[str, tuple[Any, tuple[Any, ...], float]] = {}
    arguments: tuple[Any, ...]
    for name in names:
        if name in ("step", "start"):
            active = ActiveTerms(*[name == "step"] * 2)
            make = partial(make_train_step, config, networks, optimizers, active)
            function = placement.compile_step(make, arguments=4, batch_argument=2)
            needed = needed_flops(config, networks, name == "step")
            found[name] = function, (state, teacher, batch, run), needed
        elif name == "embeddings":
            arguments = (appearance, images)
            found[name] = (
                jax.jit(forward.embeddings),
                arguments,
                flops(forward.embeddings, *arguments),
            )
        elif name == "repaint":
            arguments = (state.generator, images, codes)
            found[name] = jax.jit(forward.repaint), arguments, flops(forward.repaint, *arguments)
        else:
            example = jnp.zeros((1, 299, 299, 3))
            params = jax.eval_shape(Inception(2048).init, key, example)["params"]
            arguments = (placement.abstract(params), rows(count, 256, 128, 3))
            features = partial(_features, dims=2048)
            found[name] = (
                partial(_features.lower, dims=2048),
                arguments,
                flops(features, *arguments),
            )
    return found


def describe(function: Any, arguments: tuple[Any, ...], needed: float, chips: int) -> dict:
    """Compiles a program and says what is in it, for each chip."""
    started = time.perf_counter()
    lower = getattr(function, "lower", function)
    compiled = lower(*arguments).compile()
    seconds = time.perf_counter() - started
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
    text = compiled.as_text()
    done = costs["flops"] * chips
    return {
        "compile_seconds": round(seconds),
        "arguments_gib": round(memory.argument_size_in_bytes / 2**30, 3),
        "donated_gib": round(memory.alias_size_in_bytes / 2**30, 3),
        "temporaries_gib": round(memory.temp_size_in_bytes / 2**30, 3),
        "traffic_gb": round(costs.get("bytes accessed", 0) / 1e9, 1),
        "gflop_all_chips": round(done / 1e9),
        "gflop_needed": round(needed / 1e9),
        "flops_over_needed": round(done / needed, 3),
        "operations": operations(text),
        "text": text,
    }


def main(_: list[str]) -> None:
    for chips in map(int, _CHIPS.value):
        placement = tpu_placement(chips)
        for dtype in _DTYPES.value:
            config = ml_collections.ConfigDict(_CONFIG.value)
            config.dtype = dtype
            config.batch_size = _BATCH.value or max(config.batch_size, chips)
            for name, (function, arguments, needed) in programs(
                config, placement, _PROGRAMS.value
            ).items():
                found = describe(function, arguments, needed, chips)
                text = found.pop("text")
                if _TEXT.value:
                    path = Path(_TEXT.value) / f"{name}_{chips}_{dtype}.txt"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text)
                head = {
                    "program": name,
                    "chips": chips,
                    "device": placement.mesh.devices.flat[0].device_kind,
                    "dtype": dtype,
                    "batch": config.batch_size,
                    "jax": jax.__version__,
                }
                print(json.dumps(head | found), flush=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
