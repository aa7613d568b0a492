"""The persistent compilation cache: a second start of the same program compiles nothing."""

import os
from pathlib import Path

import jax

MIN_COMPILE_SECONDS = 1.0


def _folder() -> str | None:
    return getattr(jax.config, "jax_compilation_cache_dir", None)


def use_compilation_cache() -> None:
    """Turns the cache on, in JAX_COMPILATION_CACHE_DIR or ~/.cache/dgnet_jax/xla.

    An empty JAX_COMPILATION_CACHE_DIR turns it off. A folder set through `jax.config` stays.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or _folder():
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(base / "dgnet_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
