#!/bin/sh
# Makes the virtual environment that make runs everything in. Does nothing where it is up to date.
#
#   PYTHON  the interpreter to make it with; without it the first of python3.12, python3.11,
#           python3.13, python3 and python that is new enough
#   VENV    the folder it goes to (.venv)
#
# The environment keeps a copy of the requirements it was installed from: it is up to date as long as
# they are the same. An environment that somebody made by hand is installed into, never replaced.
set -eu
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
py=$venv/bin/python
installed=$venv/.installed-requirements
unfinished=$venv/.unfinished

die() {
    echo "setup: $*" >&2
    exit 1
}

requirements() { cat requirements.txt requirements-dev.txt; }
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
makes_environments() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Sets $python, or says what is missing.
choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
        version "$PYTHON" >/dev/null || die "PYTHON=$PYTHON does not start: name a Python 3.11 or newer."
    else
        set -- python3.12 python3.11 python3.13 python3 python
    fi
    found= without_pip=
    for python; do
        number=$(version "$python") || continue
        found="$found $python is $number,"
        new_enough "$python" || continue
        makes_environments "$python" && return
        without_pip="$without_pip $number"
    done
    for number in $without_pip; do
        die "Python $number is there, but not its modules venv and ensurepip. Install them (Debian," \
            "Ubuntu: apt-get install python$number-venv) and run this again."
    done
    die "DG-Net needs Python 3.11 or newer; found:${found:- none}${found:+ too old}. Install one" \
        "(Debian 12, Ubuntu 24.04 or newer: apt-get install python3-venv) or name one that is" \
        "installed: make venv PYTHON=/path/to/python3.12"
}

# Two makes started at once must not install into one folder together.
if command -v flock >/dev/null; then
    exec 9<scripts/setup.sh
    flock -n 9 || { echo "setup: waiting for another one to finish"; flock 9 || true; }
fi

if [ ! -e "$unfinished" ] && number=$(version "$py"); then
    new_enough "$py" ||
        die "$venv holds Python $number; 3.11 or newer is needed. Remove it, or choose another folder" \
            "with VENV=."
    if [ -n "${PYTHON:-}" ]; then
        wanted=$(version "$PYTHON") || die "PYTHON=$PYTHON does not start."
        [ "$wanted" = "$number" ] ||
            die "$venv holds Python $number, PYTHON=$PYTHON is $wanted. Remove $venv, or choose another" \
                "folder with VENV=."
    fi
    if requirements | cmp -s - "$installed"; then
        exit 0
    fi
else
    if [ -d "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ ! -e "$unfinished" ] &&
        [ -n "$(ls -A "$venv")" ]; then
        die "VENV=$venv is a folder of something else: choose another."
    fi
    choose_python
    number=$(version "$python")
    echo "setup: making $venv with Python $number"
    rm -rf -- "$venv"
    mkdir -p "$venv"
    : >"$unfinished"
    "$python" -m venv "$venv"
    echo '*' >"$venv/.gitignore"
fi

rm -f "$installed"
"$py" -m pip --version >/dev/null 2>&1 || "$py" -m ensurepip >/dev/null ||
    die "$venv has no pip: remove it, and run this again."
quiet=--quiet
[ ! -t 1 ] || quiet=
echo "setup: installing requirements-dev.txt into $venv (minutes where nothing is cached)"
begun=$(date +%s)
# --no-compile: what is imported is compiled then, and most of what is installed never is. It halves
# the time.
# shellcheck disable=SC2086  # no argument rather than an empty one
"$py" -m pip install --disable-pip-version-check --no-input --no-compile $quiet -r requirements-dev.txt
rm -f "$unfinished"
requirements >"$installed"
echo "setup: done in $(($(date +%s) - begun)) s"
