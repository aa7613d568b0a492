"""The demo's weights over several choices of people, beside the truth.

    python -m benchmarks.demo [--weights FILE] [--choices 10] [--people 16]

dresses test people in the clothes of as many others, for each seed of the choice, and prints a row
of JSON a choice and their mean and standard deviation.
"""

import argparse
import json
from collections.abc import Sequence

import numpy as np

from dgnet_jax.config import trained_config
from dgnet_jax.data.synthetic import choose_shots, draw_true_swaps
from dgnet_jax.demo import WEIGHTS, all_swaps, drawing_settings
from dgnet_jax.evaluation.truth import measure_in_short
from dgnet_jax.inference import load_model


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default=str(WEIGHTS), help="as of dgnet_jax.demo")
    parser.add_argument("--choices", type=int, default=10, help="seeds, from 0")
    parser.add_argument("--people", type=int, default=16, help="appearances and structures each")
    arguments = parser.parse_args(argv)

    config = trained_config(arguments.weights)
    model = load_model(config, None if config.released else arguments.weights)
    settings = drawing_settings(model)
    rows = []
    for seed in range(arguments.choices):
        appearances, structures = choose_shots(settings, arguments.people, seed)
        truth = draw_true_swaps(settings, appearances, structures, *model.image_size)
        swapped = all_swaps(model, truth.appearances, truth.structures)
        rows.append(measure_in_short(swapped, truth))
        print(json.dumps({"seed": seed} | rows[-1]), flush=True)
    for name in ("mean", "std"):
        values = {key: getattr(np, name)([row[key] for row in rows]) for key in rows[0]}
        print(json.dumps({name: {key: round(float(value), 4) for key, value in values.items()}}))


if __name__ == "__main__":
    main()
