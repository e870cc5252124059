#!/usr/bin/env bash
# Store a teacher's logits on the devices of one or more machines; on gloo where there is no CUDA.
#   bash tools/dist_store_teacher.sh CONFIG DEVICES --epochs N [options of tools/store_teacher.py]
# Several machines: the same command on each, with NNODES, NODE_RANK, MASTER_ADDR (and PORT) set, and one folder of all.
# After an interruption the same command writes what is missing.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: bash tools/dist_store_teacher.sh CONFIG DEVICES --epochs N [options of tools/store_teacher.py]" >&2
    exit 2
fi
config=$1 devices=$2

exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$devices" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$(dirname "$0")/store_teacher.py" "$config" --launcher pytorch "${@:3}"
