"""Many recipes of a training on drawn data, each measured against the truth of swaps.

    python -m benchmarks.recipes RECIPES.json OUT --config=configs/quickstart.py:l1_rmse \
        --config.data.root=DIR

RECIPES.json maps names to fields of the configuration: {"more": {"weights.gan": 0.5}, ...}.
Weights and learning rates are inputs of the compiled step: recipes that differ in these alone,
and in `total_steps`, share one program. OUT gets results.jsonl, a row each `--every` steps, the
teacher that all share, and a picture of each recipe's swaps beside their truth.
"""

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from dgnet_jax.data.pipeline import gather_pairs
from dgnet_jax.data.sampling import PairSampler
from dgnet_jax.data.synthetic import TrueSwaps, drawn_settings
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.truth import chosen_swaps, measure_truth
from dgnet_jax.figures import save_png, truth_matrix
from dgnet_jax.models import build_networks
from dgnet_jax.models.forward import Forward, compiled
from dgnet_jax.runtime.devices import use_compilation_cache
from dgnet_jax.runtime.reading import read_json
from dgnet_jax.training.session import Session, make_train_step, run_inputs
from dgnet_jax.training.state import TrainState, make_optimizers
from dgnet_jax.training.teacher import train_teacher
from dgnet_jax.training.trainer import initial_state

_CONFIG = config_flags.DEFINE_config_file("config", None, "that all recipes start from")
_EVERY = flags.DEFINE_integer("every", 200, "steps between measurements", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", None, "no recipe is begun later than this")

# Fields that one program takes as inputs.
INPUTS = (
    *(f"weights.{name}" for name in ("gan", "self_reconstruction", "same_identity_reconstruction")),
    *(f"weights.{name}" for name in ("identity", "same_identity", "generated_identity", "teacher")),
    *(f"weights.{name}" for name in ("structure_code", "appearance_code", "cycle", "fine")),
    *(f"optimizer.{part}_learning_rate" for part in ("generator", "discriminator", "appearance")),
    "optimizer.beta1",
    "optimizer.weight_decay",
)
_PEOPLE, _AT_ONCE = 12, 24


class Search(NamedTuple):
    """What all recipes have in common.

    session: of the common configuration. teacher: its variables. truth: of test people.
    """

    session: Session
    teacher: Any
    truth: TrueSwaps


def get(config: ml_collections.ConfigDict, name: str) -> Any:
    """The value of a dotted field; InputError if there is none."""
    for part in name.split("."):
        if part not in config:
            raise InputError(f"recipes: no field {name} in the configuration")
        config = config[part]
    return config


def put(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
    """Sets a dotted field, of whatever type."""
    get(config, name)
    *path, last = name.split(".")
    for part in path:
        config = config[part]
    with config.ignore_type():
        config[last] = tuple(value) if isinstance(value, list) else value


def check(search: Search, name: str, config: ml_collections.ConfigDict, fields: Any) -> None:
    """Raises InputError for a field that all recipes share: of the data, the teacher, a network."""
    shared = [field for field in fields if field.startswith(("data.", "teacher."))]
    networks = build_networks(config, search.session.data.num_identities)
    if shared or networks != search.session.networks:
        raise InputError(
            f"recipes: {name} changes {', '.join(shared or fields)}; data, teacher and networks "
            "are those of --config for all recipes. Start the command once for each"
        )


def make_step(search: Search, config: ml_collections.ConfigDict) -> Callable[..., Any]:
    """(state, teacher, batch, run_inputs, inputs) -> (state, losses), compiled for `INPUTS`."""

    def step(state: TrainState, teacher: Any, batch: Any, run: Any, inputs: Any) -> Any:
        own = config.copy_and_resolve_references()
        for name, value in inputs.items():
            put(own, name, value)
        return make_train_step(own, search.session.networks, make_optimizers(own))(
            state, teacher, batch, run
        )

    return jax.jit(step, donate_argnums=0)


def run(
    search: Search,
    config: ml_collections.ConfigDict,
    step: Callable[..., Any],
    every: int,
    report: Callable[[int, float, dict[str, float], np.ndarray], None],
) -> None:
    """Trains a recipe; `report(step, seconds, measures, swaps)` is called every so many steps."""
    session = search.session
    data, placement = session.data, session.placement
    networks, optimizers = session.networks, make_optimizers(config)
    state = initial_state(config, networks, optimizers, search.teacher, placement)
    sampler = PairSampler(data.train_labels, config.batch_size, config.seed)
    forward = Forward(networks, config.data.height, config.data.width)
    swap = compiled(forward, "swap")
    inputs = {name: np.float32(get(config, name)) for name in INPUTS}
    inputs_of_run, started = run_inputs(config), time.perf_counter()
    for index in range(config.total_steps):
        batch = gather_pairs(data.train_images, sampler.batch(index))
        state, losses = step(state, search.teacher, batch, inputs_of_run, inputs)
        done = index + 1
        if done % every == 0 or done == config.total_steps:
            found = {name: float(np.sum(value)) for name, value in losses.items()}
            seconds = time.perf_counter() - started
            swapped = all_swaps(partial(swap, state.generator, state.appearance_variables), search)
            report(done, seconds, found | measure_truth(swapped, search.truth), swapped)


def all_swaps(swap: Callable[..., Any], search: Search) -> np.ndarray:
    """Every appearance of the truth on every structure, (n, m, height, width, 3)."""
    truth = search.truth
    n, m = truth.truth.shape[:2]
    i, j = np.divmod(np.arange(n * m), m)
    parts = [
        np.asarray(swap(truth.appearances[i[rows]], truth.structures[j[rows]]))
        for rows in np.split(np.arange(n * m), range(_AT_ONCE, n * m, _AT_ONCE))
    ]
    return np.concatenate(parts).reshape(truth.truth.shape)


def main(arguments: list[str]) -> None:
    """The command."""
    if len(arguments) != 3 or _CONFIG.value is None:
        raise app.UsageError("give RECIPES.json, OUT and --config")
    try:
        search_recipes(Path(arguments[1]), Path(arguments[2]), _CONFIG.value)
    except (InputError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def search_recipes(file: Path, out: Path, base: ml_collections.ConfigDict) -> None:
    """Trains every recipe of the file, and writes into `out`."""
    started = time.perf_counter()
    remedy = "Give an object of recipes, each an object of fields and their values"
    recipes = read_json(file, dict[str, dict[str, Any]], remedy)
    out.mkdir(parents=True, exist_ok=True)
    use_compilation_cache()
    session = Session(base)
    _ = session.data  # drawn now, if it is not there yet
    settings = drawn_settings(base.data.root)
    if settings is None:
        raise InputError(f"--config.data.root={base.data.root}: no drawn data set, so no truth")
    size = base.data.height, base.data.width
    truth = chosen_swaps(settings, _PEOPLE, base.seed, *size)
    teacher, _ = train_teacher(base, session.data, out, session.placement)
    search = Search(session, teacher, truth)
    steps: dict[str, Callable[..., Any]] = {}
    for name, fields in recipes.items():
        if _SECONDS.value and time.perf_counter() - started > _SECONDS.value:
            break
        config = base.copy_and_resolve_references()
        for field, value in fields.items():
            put(config, field, value)
        check(search, name, config, fields)
        static = {k: v for k, v in fields.items() if k not in (*INPUTS, "total_steps", "seed")}
        program = json.dumps(static, sort_keys=True)
        if program not in steps:
            steps[program] = make_step(search, config)

        def report(
            step: int,
            seconds: float,
            measures: dict[str, float],
            swapped: np.ndarray,
            name: str = name,
            fields: Mapping[str, Any] = fields,
        ) -> None:
            row = {"recipe": name, "step": step, "seconds": round(seconds, 1), "fields": fields}
            with (out / "results.jsonl").open("a") as stream:
                stream.write(json.dumps(row | measures) + "\n")
            transfer, kept = measures["appearance_transfer"], measures["structure_kept"]
            print(f"{name} step {step}, {seconds:.0f} s: {transfer:.3f}, {kept:.3f}", flush=True)
            figure = truth_matrix(
                list(truth.appearances[:6]),
                list(truth.structures[:8]),
                swapped[:6, :8],
                truth.truth[:6, :8],
                caption=f"{name}, step {step}: {json.dumps(fields)}",
                scale=max(1, 128 // size[0]),
            )
            save_png(figure, out / f"{name}.png")

        run(search, config, steps[program], _EVERY.value, report)


if __name__ == "__main__":
    app.run(main)
