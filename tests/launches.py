"""Prints what command lines of launch.py end with, as JSON: a list of [exit code, text].

`python tests/launches.py JSON` takes a list of lists of arguments and runs one after another. The
number of devices is that of the process, which the tests' own does not have.
`python tests/launches.py PROCESS PORT JSON` is one of two processes, which run each line together.
"""

import json
import sys

import jax
from processes import launch_here

if __name__ == "__main__":
    *place, lines = sys.argv[1:]
    if place:
        process, port = place
        jax.distributed.initialize(f"localhost:{port}", 2, int(process))
    print(json.dumps([launch_here(arguments) for arguments in json.loads(lines)]))
