#!/usr/bin/env bash
# Prints what crosses RabbitMQ, by `synod firehose`, which only an administrator of RabbitMQ may do.
#
#   compose/trace.sh "OPTIONS" COMPOSE...     for instance: compose/trace.sh "--seconds 5" docker compose
#
# Where nodes are users of their own, no container of theirs has that password; a container of this
# command gets it for as long as it runs.
set -euo pipefail

read -ra options <<<"$1"
shift
compose=("$@")

gateway=$("${compose[@]}" ps --quiet gateway-1)
[ -n "$gateway" ] || { echo "gateway-1 does not run: make up" >&2; exit 1; }
users=$(docker inspect --format '{{index .Config.Labels "synod.broker-users"}}' "$gateway")
if [ "$users" != own ]; then
    exec "${compose[@]}" exec -T gateway-1 synod firehose ${options[@]+"${options[@]}"}
fi

mapfile -t brokers < <("${compose[@]}" config --services | grep '^rabbitmq' | sort)
of_broker() { "${compose[@]}" exec -T "${brokers[0]}" printenv "$1" </dev/null; }
administrator="$(of_broker RABBITMQ_DEFAULT_USER):$(of_broker RABBITMQ_DEFAULT_PASS)"
urls=$(printf ",amqps://$administrator@%s:5671/" "${brokers[@]}")
ca=$(docker inspect --format \
    '{{range .Mounts}}{{if eq .Destination "/etc/synod/ca.pem"}}{{.Source}}{{end}}{{end}}' "$gateway")
# By its name alone: the value of a variable shows in no list of processes.
export SYNOD_BROKER="${urls#,}"
exec docker run --rm --init --network "container:$gateway" --read-only --cap-drop ALL \
    --security-opt no-new-privileges:true --volume "$ca:/etc/synod/ca.pem:ro" \
    --env SYNOD_BROKER --env SYNOD_BROKER_CA=/etc/synod/ca.pem --env SYNOD_BROKER_USERS=own \
    synod:local firehose ${options[@]+"${options[@]}"}
