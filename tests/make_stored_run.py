"""Makes a work directory that later releases must be able to read, and says what is in it.

    PYTHONPATH=.:tests JAX_PLATFORMS=cpu python tests/make_stored_run.py tests/data/run_0.1.0

trains the teacher and DG-Net for one step each, the smallest networks on drawn images, and packs
config.json and the two checkpoints into run_0.1.0.zip. run_0.1.0.json gets numbers of the
checkpoints and of what the networks make of two images. `tests/test_stored_run.py` reads the runs
of all releases: add one, and leave the earlier ones as they are. The size of the .zip differs from
one making to the next, from 90 to 180 KB, with how often the checkpoint's index was written.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from processes import draw_tiny_data
from tiny import IDENTITIES, tiny_config, tiny_state, tiny_teacher

import dgnet_jax
from configs import trained
from dgnet_jax.errors import InputError
from dgnet_jax.inference import load_model
from dgnet_jax.models import build_networks
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.workdir import CONFIG_FILE, DGNET_STAGE, TEACHER_STAGE, stage_directory
from dgnet_jax.training.state import make_optimizers
from dgnet_jax.training.teacher import TeacherState, make_optimizer

STEPS = 1
FIELDS = {
    "total_steps": STEPS,
    "teacher.total_steps": STEPS,
    "batch_size": 2,
    "teacher.batch_size": 2,
    "structure_encoder.dim": 1,
    "decoder.mlp_width": 2,
    "discriminator.dim": 1,
    "appearance.embedding": 4,
    "teacher.embedding": 4,
    "appearance.stage_widths": (2,),
    "teacher.stage_widths": (2,),
}


def read_states(workdir: Path, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The state of each stage at its last step."""
    networks = build_networks(config, IDENTITIES)
    variables = tiny_teacher(networks)
    teacher = TeacherState(
        step=jnp.int32(0),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        optimizer=make_optimizer(config).init(variables["params"]),
    )
    wanted = {
        TEACHER_STAGE: teacher,
        DGNET_STAGE: tiny_state(networks, make_optimizers(config), 0),
    }
    found = {}
    for stage, state in wanted.items():
        with Checkpoints(stage_directory(workdir, stage), read_only=True) as checkpoints:
            found[stage] = checkpoints.restore(state)
    return found


def describe(state: Any) -> dict[str, dict[str, float]]:
    """Of each field of a state: how many numbers, their sum of squares, and the last of them."""
    described = {}
    for name, tree in vars(state).items():
        leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
        values = np.concatenate(leaves)
        described[name] = {
            "count": len(values),
            "squares": float(np.square(values).sum()),
            "last": float(values[-1]),
        }
    return described


def compute(workdir: Path) -> dict[str, Any]:
    """What the networks of the run make of two images of noise: codes, embeddings and a picture."""
    model = load_model(trained.get_config(str(workdir)), workdir, STEPS)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 16, 3), np.uint8)
    return {
        "embeddings": model.embeddings(images).tolist(),
        "appearance_codes": model.appearance_codes(images).tolist(),
        "structure_code": float(np.square(model.structure_codes(images)).sum()),
        "picture": model.swap(images[:1], images[1:])[0, ::8, ::8, 0].tolist(),
    }


def drop_unread(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Deletes data files that are not needed to restore: superseded versions of OCDBT's index."""
    for path in sorted(workdir.rglob("ocdbt.process_0/d/*")):
        aside = workdir / path.name
        path.rename(aside)
        try:
            read_states(workdir, config)
        except InputError:
            aside.rename(path)
        else:
            aside.unlink()


def main(stem: Path) -> None:
    stem = stem.absolute()
    config = tiny_config(FIELDS)
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)  # so that the files name no folder of this machine
        config.data.root = "people"
        draw_tiny_data(Path(config.data.root))
        dgnet_jax.train(config, "trained")
        kept = Path("kept")
        for stage in (TEACHER_STAGE, DGNET_STAGE):
            source = stage_directory(Path("trained"), stage) / str(STEPS)
            shutil.copytree(source, stage_directory(kept, stage) / str(STEPS))
        shutil.copy(Path("trained") / CONFIG_FILE, kept)
        drop_unread(kept, config)
        states = read_states(kept, config)
        numbers = {
            "states": {stage: describe(state) for stage, state in states.items()},
            "computed": compute(kept),
        }
        shutil.make_archive(str(stem), "zip", kept)
        os.chdir(stem.parent)
    stem.with_name(f"{stem.name}.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
