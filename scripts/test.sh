#!/bin/sh
# Runs the tests for `make test`, with the arguments that it is given to pytest: first all but those with
# full-size networks, by WORKERS processes side by side (2; 0 is one), then those one after another. They
# need up to 17 GiB and both cores, and programs compiled to be fast rather than compiled fast.
#
#   VENV     the folder of the environment (.venv)
#   WORKERS  how many processes run tests at once
set -u
cd "$(dirname "$0")/.."

py=${VENV:-.venv}/bin/python
workers=${WORKERS:-2}
status=0 found=

end() {
    # 5: no test was chosen, as with ARGS="-k losses" in one of the two parts.
    [ "$1" = 5 ] || found=yes
    [ "$1" = 0 ] || [ "$1" = 5 ] || status=$1
}

"$py" -m pytest -m "not alone" --fast-compilation \
    -n "$workers" --dist loadfile --no-loadscope-reorder "$@"
end $?
"$py" -m pytest -m alone "$@"
end $?
[ "$found" ] || status=5
exit "$status"
