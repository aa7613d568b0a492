"""Configurations: every hyper-parameter with its published value, variants of it, a run's own.

`configs/market.py`, `configs/quickstart.py` and the others, and a user's own files, start from
`default_config` and take arguments after a colon, a reconstruction loss first, then flags:

    python launch.py --config=configs/market.py:l1_rmse,small --config.total_steps=2000

Any field can be overridden as `--config.field.name=value`. Published values: DG-Net (CVPR 2019);
docs/method.md.
"""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections
from safetensors import SafetensorError, safe_open

from dgnet_jax.config_fields import checked, older_config
from dgnet_jax.config_fields import default_config as default_config
from dgnet_jax.errors import InputError
from dgnet_jax.losses import canonical_expression
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import WEIGHTS_BYTES, check_regular, check_shape, parse_json
from dgnet_jax.runtime.workdir import CONFIG_FILE, REMEDY, from_json, load_config

CONFIG_KEY = "config"
"""Of a .safetensors file's metadata: the configuration of the run that it is of, as JSON."""


def apply_variant(
    config: ml_collections.ConfigDict,
    variant: str,
    flags: Mapping[str, Callable[[ml_collections.ConfigDict], None]],
) -> ml_collections.ConfigDict:
    """Applies the argument after a config file's colon, such as "l1_rmse,small".

    Args:
        config: changed in place.
        variant: a reconstruction loss, then flags, see `split_list`; all may be left out.
        flags: name to a function that changes the config.

    Raises:
        InputError: an unknown loss or flag; lists the known ones and suggests the nearest.
    """
    words = split_list(variant)
    for index, word in enumerate(words):
        if word in flags:
            flags[word](config)
        elif index == 0:
            canonical_expression(word)
            config.reconstruction_loss = word
        else:
            near = difflib.get_close_matches(word, flags, n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise InputError(
                f"--config: unknown flag {word!r} after the colon{hint}. Known flags: "
                f"{', '.join(sorted(flags)) or 'none'}. "
                "The reconstruction loss comes first, flags after it: 'l1_rmse,small'."
            )
    return config


def split_list(text: str) -> list[str]:
    """The words between commas; those within parentheses, of a loss's parameters, separate nothing.

    "barron(alpha=0,c=0.1), small" is ["barron(alpha=0,c=0.1)", "small"]. Empty words are left out.
    """
    words, depth = [""], 0
    for character in text:
        depth = max(0, depth + {"(": 1, ")": -1}.get(character, 0))
        if character == "," and depth == 0:
            words.append("")
        else:
            words[-1] += character
    return [word.strip() for word in words if word.strip()]


def trained_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """The configuration of a trained run, as its work directory holds it.

    Fields that are newer than the run get what it had in their place.

    Args:
        workdir: the folder of the run; or a .safetensors file of `export.released.to_safetensors`,
            which becomes `config.released`.

    Raises:
        InputError: it is no work directory and no such file, or a field of it is unknown or has a
            value that it may not have.
    """
    weights = user_path(workdir)
    if weights.suffix == ".safetensors" and not weights.is_dir():
        config = _config_inside(weights)
        config.released = str(weights)
        return config
    folder = weights.absolute()
    return stored_config(load_config(workdir), folder / CONFIG_FILE, REMEDY)


def stored_config(
    config: ml_collections.ConfigDict, file: Path, remedy: str
) -> ml_collections.ConfigDict:
    """`config_fields.checked` of what a file holds; its InputError names the file.

    Fields that it lacks are newer than it is: they get the values of `older_config`.
    """
    try:
        return checked(config, absent=older_config())
    except InputError as error:
        raise InputError(f"{file}: not the configuration of a run. {remedy}\n{error}") from error


def _config_inside(weights: Path) -> ml_collections.ConfigDict:
    try:
        check_regular(weights, WEIGHTS_BYTES)
        with safe_open(weights, framework="numpy") as file:
            text = (file.metadata() or {})[CONFIG_KEY]
        config = from_json(check_shape(parse_json(text), dict[str, Any]))
    except FileNotFoundError as error:
        raise InputError(f"{weights}: no such file; name a .safetensors file or a run") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{weights}: holds no configuration ({_reason(error)}); python -m dgnet_jax.convert "
            "--to-safetensors RUN FILE writes one that does. For others give a configuration, such "
            "as --config=configs/market.py, and --config.released=FILE"
        ) from error
    return stored_config(config, weights, "Write the file again.")


def _reason(error: Exception) -> str:
    return f"no {error} in its metadata" if isinstance(error, KeyError) else str(error)


# `--config=dgnet_jax/config.py:runs/a` is the configuration of a run.
get_config = trained_config
