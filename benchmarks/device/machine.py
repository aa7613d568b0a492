"""What the machine is, and the two ceilings that times are compared with.

    python -m benchmarks.device.machine [--size 8192] [--copy_mib 4096]

prints JSON lines: versions and card; products of square matrices of random numbers in bfloat16, in
float32 as jax multiplies by default (TF32 on NVIDIA) and in full float32; a copy in the device's
memory, counting bytes read and bytes written. Each is the median of `--repeats` after a warm-up.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp

_PACKAGES = (
    "jax",
    "jaxlib",
    "jax-cuda13-plugin",
    "jax-cuda12-plugin",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "pillow",
    "ml_collections",
    "tensorboardX",
)


def versions() -> dict[str, str | None]:
    """Of Python and the packages that results depend on; None for those that are not there."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def card() -> str | None:
    """Name, memory, driver and clocks of the GPU, as nvidia-smi reports them."""
    if not shutil.which("nvidia-smi"):
        return None
    fields = "name,memory.total,driver_version,clocks.sm,clocks.mem,power.limit,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "nvidia-smi does not answer"
    return (found.stdout or found.stderr).strip()


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """Of a call, until its result is there; the first, which compiles, and a second are left out.

    Ten calls are dispatched together, so that the host's share of each is hidden.
    """
    for _ in range(2):
        jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = None
        for _ in range(10):
            result = run()
        jax.block_until_ready(result)
        times.append((time.perf_counter() - started) / 10)
    return statistics.median(times)


def matmul(size: int, dtype: Any, precision: str | None, repeats: int) -> float:
    """TFLOP/s of size x size x size."""
    left, right = (
        jax.random.normal(jax.random.key(seed), (size, size), jnp.float32).astype(dtype)
        for seed in (0, 1)
    )
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    return 2 * size**3 / median_seconds(lambda: product(left, right), repeats) / 1e12


def copy(mebibytes: int, repeats: int) -> float:
    """GB/s, read and written, of a copy that no cache holds."""
    # Bits, not numbers: adding to random floats could be anything, xor of integers costs nothing.
    values = jax.random.bits(jax.random.key(0), (mebibytes * 2**18,), jnp.uint32)
    flip = jax.jit(lambda x: x ^ jnp.uint32(1))
    return 2 * values.nbytes / median_seconds(lambda: flip(values), repeats) / 1e9


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.device.machine", description=__doc__)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--copy_mib", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--require_accelerator", action="store_true")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    if arguments.require_accelerator and device.platform == "cpu":
        parser.exit(1, f"error: jax found CPUs only; nvidia-smi: {card() or 'not there'}\n")
    about = {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "card": card(),
        "versions": versions(),
    }
    print(json.dumps(about), flush=True)
    ceilings = {
        "matmul_bfloat16_tflops": (jnp.bfloat16, None),
        "matmul_float32_tflops": (jnp.float32, None),
        "matmul_float32_highest_tflops": (jnp.float32, "highest"),
    }
    row: dict[str, Any] = {"matmul_size": arguments.size}
    for name, (dtype, precision) in ceilings.items():
        row[name] = round(matmul(arguments.size, dtype, precision, arguments.repeats), 4)
    row["copy_mib"] = arguments.copy_mib
    row["copy_gb_per_second"] = round(copy(arguments.copy_mib, arguments.repeats), 2)
    row["card_after"] = card()
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
