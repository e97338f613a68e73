#!/bin/sh
# Make the virtual environment named by the first argument, unless a usable one is there.
# PYTHON names the interpreter to use; without it the first of the usual names that is 3.11 or newer.
set -eu
here=$(dirname "$0")
. "$here/packages.sh"
venv=${1:?usage: venv.sh FOLDER}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if is_new_enough "$python"; then
            echo "$python"
            return
        fi
    done
    return 1
}

if is_new_enough "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi
if ! python=$(find_python); then
    if [ -n "${PYTHON:-}" ]; then
        echo "error: PYTHON=$PYTHON is not Python 3.11 or newer" >&2
        exit 1
    fi
    install_packages python3
    python=$(find_python) || {
        echo "error: Python 3.11 or newer is needed; name it with PYTHON=…" >&2
        exit 1
    }
fi
echo "Making $venv with $($python --version)" >&2
if ! output=$("$python" -m venv --clear "$venv" 2>&1); then
    # Debian and Ubuntu keep a part of the standard library's venv in a package of its own.
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if "$python" -c 'import ensurepip' 2>/dev/null || ! install_packages "$package"; then
        echo "$output" >&2
        exit 1
    fi
    "$python" -m venv --clear "$venv"
fi
