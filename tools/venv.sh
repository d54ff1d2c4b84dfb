#!/bin/sh
# Make .venv. `make` calls this before everything else: it answers at once while .venv is up to date, remakes it when
# requirements.lock, the folder or PYTHON changed, and finishes an installation that was interrupted, because each of
# its two steps leaves its mark in .venv only when it is through.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "vqlib: $1" >&2
    exit 1
}

describe() {
    "$1" -c 'import platform, sys
name = platform.system(), platform.machine(), platform.python_implementation(), "%d.%d" % sys.version_info[:2]
print(" ".join(name))' 2>/dev/null
}

python=${PYTHON:-.venv/bin/python}
[ -n "${PYTHON:-}" ] || describe "$python" >/dev/null || python=python3
platform=$(describe "$python") || fail "$python does not run; name a Python from 3.11 on: make PYTHON=python3.12"
case ${platform##* } in
2.* | 3.? | 3.10) fail "$python is Python ${platform##* }; name one from 3.11 on: make PYTHON=python3.12" ;;
esac
locked() { grep -qxF "#   $platform" requirements.lock; }

made_for="$(pwd -P), $platform, $(cksum <requirements.lock)"
if [ "$(cat .venv/made-for 2>/dev/null)" != "$made_for" ]; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv; on Debian: apt install python3-venv"
    rm -f .venv/made-for .venv/pyproject.toml
    "$python" -m venv --clear .venv
    if locked; then
        echo "vqlib: installing requirements.lock into .venv: 3 GB to download, 6 GB on disk"
        # The build backend comes first, so that the one package without a wheel is built with it and fetches no other.
        sed -n '/^setuptools==/,/[^\\]$/p' requirements.lock |
            .venv/bin/python -m pip install --require-hashes -r /dev/stdin
        .venv/bin/python -m pip install --require-hashes --no-build-isolation -r requirements.lock
    fi
    echo "$made_for" >.venv/made-for
fi

if ! cmp -s pyproject.toml .venv/pyproject.toml; then
    if locked; then
        .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
    else
        echo "vqlib: requirements.lock is not for $platform: installing from pyproject.toml, versions are not locked"
        .venv/bin/python -m pip install -e '.[test]'
    fi
    cp pyproject.toml .venv/pyproject.toml
fi
