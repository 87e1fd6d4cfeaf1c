#!/usr/bin/env bash
# Adds this machine to the cluster of a head, in the foreground:
#
#   RAY_AUTH_TOKEN=... cluster/start-worker.sh 10.0.0.1:6379
#
# Further arguments go to `ray start`, such as --num-cpus 12 to leave cores to others. Ray counts cores and GPUs
# itself. Ctrl-C takes the machine out again; other nodes redo its shards. start-head.sh lists the ports.
set -euo pipefail

if [[ $# -lt 1 || "$1" == -* ]]; then
    echo "usage: cluster/start-worker.sh HEAD:6379 [OPTIONS OF ray start]" >&2
    exit 2
fi
if [[ -z "${RAY_AUTH_TOKEN:-}" && ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]]; then
    echo "error: no token: set RAY_AUTH_TOKEN to the head's, or copy its ~/.ray/auth_token" >&2
    exit 2
fi

head=$1
shift
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
exec ray start --block --address="$head" --object-manager-port=8076 --node-manager-port=8077 \
    --dashboard-agent-listen-port=52365 --dashboard-agent-grpc-port=52366 --runtime-env-agent-port=52367 \
    --metrics-export-port=8080 --min-worker-port=20000 --max-worker-port=20999 "$@"
