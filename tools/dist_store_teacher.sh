#!/usr/bin/env bash
# Store a teacher's logits on the devices of one or more machines; on gloo where there is no CUDA.
#   bash tools/dist_store_teacher.sh CONFIG DEVICES --epochs N [options of tools/store_teacher.py]
# Several machines: the same command on each, with NNODES, NODE_RANK, MASTER_ADDR (and PORT) set, and one folder of all.
# After an interruption the same command writes what is missing; MAX_RESTARTS=n does so by itself, up to n times.
set -euo pipefail
MMCLS_KD_TOOL=store_teacher.py exec bash "$(dirname "$0")/dist_train.sh" "$@"
