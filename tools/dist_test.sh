#!/usr/bin/env bash
# Test on the devices of one or more machines; on gloo where there is no CUDA.
#   bash tools/dist_test.sh CONFIG CHECKPOINT DEVICES [options of tools/test.py]
# Several machines: the same command on each, with NNODES, NODE_RANK, MASTER_ADDR (and PORT) set.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "dist_test.sh: error: CONFIG, CHECKPOINT and DEVICES are needed: bash tools/dist_test.sh CONFIG CHECKPOINT DEVICES" >&2
    exit 2
fi
MMCLS_KD_TOOL=test.py exec bash "$(dirname "$0")/dist_train.sh" "$1" "$3" "$2" "${@:4}"
