#!/usr/bin/env bash
# Two hosts on one machine: two network namespaces joined by a pair of virtual interfaces, and a link that can be cut.
#   bash tests/two_hosts.sh up|cut|join|down NAME
# up makes the hosts NAME-0 (10.77.0.1) and NAME-1 (10.77.0.2); down removes them and whatever still runs in them. A program
# runs in one by `ip netns exec NAME-0 PROGRAM`. Each command may be repeated.
# Exit code 77: this machine does not allow it; the last line says why.
set -euo pipefail
if [ $# -ne 2 ]; then
    echo "usage: bash tests/two_hosts.sh up|cut|join|down NAME" >&2
    exit 2
fi
action=$1 hosts=("$2-0" "$2-1")

not_here() {
    echo "two_hosts.sh: no network namespaces on this machine: ${1//$'\n'/; }" >&2
    exit 77
}

exists() { [ -e "/run/netns/$1" ]; }

down() {
    local host processes
    for host in "${hosts[@]}"; do
        exists "$host" || continue
        processes=$(ip netns pids "$host" 2>/dev/null) || true
        # shellcheck disable=SC2086 # one word a process
        [ -z "$processes" ] || kill -KILL $processes 2>/dev/null || true
        ip netns del "$host" # the interface goes with it, and the other end with that
    done
}

up() {
    local i said
    trap 'code=$?; trap - EXIT; [ "$code" -eq 0 ] || down || true; exit "$code"' EXIT
    for i in 0 1; do
        exists "${hosts[i]}" || said=$(ip netns add "${hosts[i]}" 2>&1) || not_here "ip netns add: $said"
        said=$(ip netns exec "${hosts[i]}" true 2>&1) || not_here "ip netns exec: $said"
    done
    if ! ip -n "${hosts[0]}" link show wire >/dev/null 2>&1; then
        said=$(ip link add wire netns "${hosts[0]}" type veth peer name wire netns "${hosts[1]}" 2>&1) ||
            not_here "ip link add: $said"
    fi
    for i in 0 1; do
        ip -n "${hosts[i]}" address replace "10.77.0.$((i + 1))/30" dev wire
        ip -n "${hosts[i]}" link set lo up
        ip -n "${hosts[i]}" link set wire up
    done
}

command -v ip >/dev/null || not_here "there is no program ip (Debian: iproute2)"
case $action in
    up) up ;;
    cut) ip -n "${hosts[1]}" link set wire down ;; # the first host sees a wire without a signal, as when a cable is pulled
    join) ip -n "${hosts[1]}" link set wire up ;;
    down) down ;;
    *) echo "two_hosts.sh: $action: up, cut, join or down" >&2 && exit 2 ;;
esac
