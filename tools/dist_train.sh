#!/usr/bin/env bash
# Train on the devices of one or more machines; on gloo where there is no CUDA.
#   bash tools/dist_train.sh CONFIG DEVICES [options of tools/train.py]
# Several machines: the same command on each, with NNODES, NODE_RANK, MASTER_ADDR (and PORT) set.
# MAX_RESTARTS=n starts the processes again after a failure, up to n times; they go on from the last checkpoint. An error that
# would come again (bad input, a loss that is NaN, a full disk) ends the run at once.
# Exit code 75: the run was asked to end (SIGTERM) and saved its state; the same command with --resume goes on. 3: a loss became
# NaN or infinite.
set -euo pipefail
tool=${MMCLS_KD_TOOL:-train.py} # dist_store_teacher.sh runs another
script=dist_${tool%.py}.sh
refuse() {
    echo "$script: error: $1" >&2
    exit 2
}
number() { # NAME VALUE LEAST
    [[ $2 =~ ^[0-9]{1,9}$ ]] && [ "$((10#$2))" -ge "$3" ] || refuse "$1 must be a number, at least $3, and not '$2'"
}

main() { # read as a whole before it runs, so that the file may change meanwhile
    [ $# -ge 2 ] || refuse "CONFIG and DEVICES are needed: bash tools/$script CONFIG DEVICES [options of tools/$tool]"
    config=$1 devices=$2
    case $devices in
        auto | cpu | gpu) ;; # the launcher counts them
        *) number DEVICES "$devices" 1 ;;
    esac
    [ -z "${NODE_RANK:-}" ] || number NODE_RANK "$NODE_RANK" 0
    number PORT "${PORT:-29500}" 1
    number MAX_RESTARTS "${MAX_RESTARTS:-0}" 0
    if [ "${NODE_RANK:-0}" = 0 ] && (exec 3<>"/dev/tcp/${MASTER_ADDR:-127.0.0.1}/${PORT:-29500}") 2>/dev/null; then
        refuse "another program listens at port ${PORT:-29500}; choose one that is free: PORT=29501 bash tools/$script ..."
    fi

    # the launcher passes on neither a process's exit code nor its message: the processes leave both in this folder
    asked='' launcher=''
    trap 'asked=yes; [ -z "$launcher" ] || kill -TERM "$launcher" 2>/dev/null || true' TERM
    MMCLS_KD_STATUS=$(mktemp -d)
    MMCLS_KD_LAUNCH=$(basename "$MMCLS_KD_STATUS") # a name that no other launch has; checkpoints hold it
    export MMCLS_KD_STATUS MMCLS_KD_LAUNCH
    trap 'rm -rf "$MMCLS_KD_STATUS"' EXIT

    # a new launcher for each attempt: torch's own restarts meet at a place that still has the addresses of the dead processes
    launch() {
        (
            trap - INT # which the shell takes from what runs behind it
            exec python -m torch.distributed.run \
                --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$devices" \
                --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
                "$(dirname "$0")/$tool" "$config" --launcher pytorch "$@"
        ) &
        launcher=$!
        code=0
        while kill -0 "$launcher" 2>/dev/null; do # a signal ends a wait before the launcher has ended
            code=0
            wait "$launcher" || code=$?
        done
    }

    export MMCLS_KD_RESTARTS=0
    launch "${@:3}"
    while [ "$code" -ne 0 ] && [ -z "$asked" ] && [ "$MMCLS_KD_RESTARTS" -lt "${MAX_RESTARTS:-0}" ] &&
        [ ! -e "$MMCLS_KD_STATUS/terminated" ] && [ ! -e "$MMCLS_KD_STATUS/final" ]; do
        rm -f "$MMCLS_KD_STATUS/error" "$MMCLS_KD_STATUS/code"
        MMCLS_KD_RESTARTS=$((MMCLS_KD_RESTARTS + 1))
        echo "$script: restart $MMCLS_KD_RESTARTS of $MAX_RESTARTS, from the last checkpoint" >&2
        launch "${@:3}"
    done

    if [ "$code" -ne 0 ] && { [ -e "$MMCLS_KD_STATUS/terminated" ] || [ -n "$asked" ]; } && [ ! -e "$MMCLS_KD_STATUS/final" ]; then
        [ "$tool" = train.py ] && how=' with --resume' || how=''
        echo "$script: asked to end: what there is of the run is saved; the same command$how goes on" >&2
        exit 75
    fi
    if [ "$code" -ne 0 ] && [ -s "$MMCLS_KD_STATUS/error" ]; then
        cat "$MMCLS_KD_STATUS/error" >&2
        code=$(cat "$MMCLS_KD_STATUS/code")
    fi
    exit "$code"
}

main "$@"
