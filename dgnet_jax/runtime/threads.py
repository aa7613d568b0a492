"""How many threads a pool of threads takes."""

import os


def available_cpus() -> int:
    """The CPUs that this process may run on: those of its Slurm task, container or `taskset`."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
