#!/usr/bin/env bash
# Train on the devices of one or more machines; on gloo where there is no CUDA.
#   bash tools/dist_train.sh CONFIG DEVICES [options of tools/train.py]
# Several machines: the same command on each, with NNODES, NODE_RANK, MASTER_ADDR (and PORT) set.
# MAX_RESTARTS=n starts the processes again after a failure, up to n times; they go on from the last checkpoint.
# Exit code 75: the run was asked to end (SIGTERM) and saved its state; the same command with --resume goes on.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: bash tools/dist_train.sh CONFIG DEVICES [options of tools/train.py]" >&2
    exit 2
fi
config=$1 devices=$2

# the launcher passes on neither a process's exit code nor its message: the processes leave both in this folder
MMCLS_KD_STATUS=$(mktemp -d)
MMCLS_KD_STARTED=$(date +%s)
export MMCLS_KD_STATUS MMCLS_KD_STARTED
trap 'rm -rf "$MMCLS_KD_STATUS"' EXIT

(
    trap - INT # which the shell takes from what runs behind it
    exec python -m torch.distributed.run \
        --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$devices" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" --max-restarts="${MAX_RESTARTS:-0}" \
        "$(dirname "$0")/train.py" "$config" --launcher pytorch "${@:3}"
) &
launcher=$!
trap 'kill -TERM "$launcher" 2>/dev/null || true' TERM
code=0
while kill -0 "$launcher" 2>/dev/null; do # a signal ends a wait before the launcher has ended
    code=0
    wait "$launcher" || code=$?
done

if [ "$code" -ne 0 ] && [ -e "$MMCLS_KD_STATUS/terminated" ]; then
    echo "dist_train.sh: asked to end: the state is saved; the same command with --resume goes on" >&2
    exit 75
fi
if [ "$code" -ne 0 ] && [ -s "$MMCLS_KD_STATUS/error" ]; then
    cat "$MMCLS_KD_STATUS/error" >&2
fi
exit "$code"
