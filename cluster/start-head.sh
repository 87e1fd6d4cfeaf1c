#!/usr/bin/env bash
# Starts the head of a cluster of plain machines, in the foreground:
#
#   RAY_AUTH_TOKEN=... cluster/start-head.sh
#
# Further arguments go to `ray start`, such as --num-cpus 8 for a head that works too. By default it has no cores, so
# that only drivers run there. All machines need the same Python, Ray, package and token, and these ports open between
# them and closed to everybody else:
#
#   6379           GCS: where nodes join           head
#   8265           dashboard and job submission    head
#   10001          Ray Client                      head
#   8076, 8077     object and node manager         all
#   52365 - 52367  dashboard and runtime agents    all
#   8080           metrics, for Prometheus         all
#   20000 - 20999  workers                         all
set -euo pipefail

if [[ -z "${RAY_AUTH_TOKEN:-}" && ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]]; then
    echo "error: no token: set RAY_AUTH_TOKEN, or run 'ray get-auth-token --generate' and copy ~/.ray/auth_token" >&2
    exit 2
fi

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# `ray job stop` gives a job this long to report what is committed; Ray's 3 s are short on a busy head.
export RAY_JOB_STOP_WAIT_TIME_S=30
exec ray start --head --block --num-cpus=0 --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 \
    --ray-client-server-port=10001 --object-manager-port=8076 --node-manager-port=8077 \
    --dashboard-agent-listen-port=52365 --dashboard-agent-grpc-port=52366 --runtime-env-agent-port=52367 \
    --metrics-export-port=8080 --min-worker-port=20000 --max-worker-port=20999 "$@"
