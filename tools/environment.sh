#!/usr/bin/env bash
# Make the environment in .venv, or say plainly what is missing; a failure leaves nothing half-made behind.
set -euo pipefail
python=${PYTHON:-python3} env=${ENV:-.venv} index=${TORCH_INDEX:-} need_mb=${NEED_MB:-4000}

fail() { printf 'Cannot make the environment: %s\n' "$1" >&2; exit 1; }
command -v "$python" >/dev/null || fail "there is no $python. Install Python 3.11 or newer (Debian: apt install python3)."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" --version) is too old; it must be 3.11 or newer."
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv module is missing (Debian: apt install python3-venv)."
free_mb=$(df -Pm . | awk 'NR==2 {print $4}')
if [ ! -x "$env/bin/python" ] && [ "$free_mb" -lt "$need_mb" ]; then
  fail "$free_mb MB of disk are free here; it takes $need_mb MB."
fi

trap 'code=$?; [ "$code" -eq 0 ] || { rm -rf "$env"; printf "The environment was not made (see above); %s was removed. Run the command again.\n" "$env" >&2; }' EXIT
trap 'exit 130' INT TERM
rm -f "$env/.complete"
echo "Making the environment in $env (about two minutes, 1.5 GB) ..."
[ -x "$env/bin/python" ] || "$python" -m venv "$env"
pip=("$env/bin/python" -m pip --quiet --disable-pip-version-check install)
if [ -n "$index" ]; then
  "${pip[@]}" --no-deps --index-url "$index" "$(grep '^torch==' requirements.txt)"
fi
"${pip[@]}" -r requirements.txt
"${pip[@]}" --no-deps --no-build-isolation --editable .
touch "$env/.complete"
