"""A run of two stages with a stand-in for their steps, as one of two processes.

python tests/two_stages.py PROCESS PORT WORKDIR MOMENT

Process 1 gets a SIGTERM at MOMENT: "start", "between", STAGE and a number of steps such as "first3"
(while that step runs), or "never". Prints "stopped at STAGE STEP" or "finished".
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

STEPS = 3
# jax looks for the signal every second, and then tells the other processes.
SECONDS_TO_TELL = 4


def main(process: int, port: int, workdir: Path, moment: str) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    from tiny import tiny_config

    from dgnet_jax.runtime.devices import place
    from dgnet_jax.runtime.preemption import Stopped
    from dgnet_jax.training.loop import Stage, run_stage

    def pass_by(here: str) -> None:
        if here == moment:
            if process == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(SECONDS_TO_TELL)

    placement = place()

    def initial() -> dict[str, jax.Array]:
        return placement.put_state({"step": np.int32(0), "weight": np.ones(3, np.float32)})

    abstract = placement.abstract(initial())
    advance = jax.jit(lambda state: {**state, "step": state["step"] + 1})

    def stage(name: str, followed: bool) -> Stage:
        def step(number: int, state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
            print("trains", name, number, flush=True)
            pass_by(f"{name}{number + 1}")
            state = advance(state)
            return state, {"loss": state["weight"].sum()}

        return Stage(
            name=name,
            total_steps=STEPS,
            images_per_step=1,
            abstract=abstract,
            initial=initial,
            step=step,
            batch=lambda step: None,
            evaluate=lambda state: {"mAP": 0.5},
            draw=None,
            inactive=lambda step: {},
            shown=("loss",),
            evaluate_every=0,
            followed=followed,
        )

    pass_by("start")
    try:
        run_stage(stage("first", True), workdir, tiny_config())
        pass_by("between")
        run_stage(stage("second", False), workdir, tiny_config())
    except Stopped as stopped:
        print("stopped at", stopped.stage, stopped.step, flush=True)
    else:
        print("finished", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
