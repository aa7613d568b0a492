"""Prints what command lines of launch.py end with, as JSON: a list of [exit code, text].

`python tests/refused.py JSON` takes a list of lists of arguments. One process is enough for all
that are refused on a number of devices which the tests' own process does not have.
"""

import json
import sys

from processes import launch_here

if __name__ == "__main__":
    print(json.dumps([launch_here(arguments) for arguments in json.loads(sys.argv[1])]))
