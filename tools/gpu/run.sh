#!/bin/sh
# Run stages of the kit on a machine without a network: sh run.sh STAGE [STAGE...] [-- OPTIONS]
#   OUT=FOLDER   where JSON, tables and logs go (default: results beside this file)
#   LIMIT=600    seconds for all stages
# The stages: python3 stages.py --help
set -eu
here=$(cd "$(dirname "$0")" && pwd)
OUT=${OUT:-$here/results}
SITE=${SITE:-/tmp/solo-ood-site}
if [ ! -d "$SITE/solo_ood" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --root-user-action=ignore \
    --target "$SITE" "$here"/wheels/*.whl
fi
export OUT PYTHONPATH="$SITE" PYTHONWARNINGS=ignore PYTHONUNBUFFERED=1
exec python3 "$here/project/tools/gpu/stages.py" --out "$OUT" --data "$here/data.tar.gz" \
  --limit "${LIMIT:-600}" "$@"
