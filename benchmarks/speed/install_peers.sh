#!/usr/bin/env bash
# Puts each peer into an environment of its own below venvs (or $COTERIE_PEERS), at the versions compared with.
set -euo pipefail
cd "$(dirname "$0")"
where="${COTERIE_PEERS:-venvs}"
install() {
  [ -d "$where/$1" ] || "${PYTHON:-python3}" -m venv "$where/$1"
  "$where/$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"
}
install flower "flwr[simulation]==1.41.0" torch==2.13.0
install pfl pfl==0.6.0 torch==2.13.0
install fedjax fedjax==0.0.17 jax jaxlib
