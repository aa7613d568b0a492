"""Prints what command lines of launch.py end with, as JSON: a list of [exit code, text].

`python tests/refused.py JSON` takes a list of lists of arguments. One process is enough for all
that are refused on a number of devices which the tests' own process does not have.
`python tests/refused.py PROCESS PORT JSON` is one of two processes, which run each line together.
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
