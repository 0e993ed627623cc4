#!/usr/bin/env bash
# Starts RabbitMQ and makes a user of each node there, before `make up OWN_USERS=1` starts the nodes.
#
#   compose/own-users.sh .secrets/broker PATIENCE_S COMPOSE...
#
#   NODE.env         for the container of that node, and no other one
#   operator.env     for people, at RabbitMQ's console
#   monitoring.env   for programs that watch RabbitMQ
#
# What exists stays. A user without a file gets a new password, its connections end, and its node starts
# again. `synod broker init` runs in a container without a network and writes what RabbitMQ is to import;
# RabbitMQ's own container imports it. So no container of Synod gets the administrator's password.
#
# Only this user gets into the folder. Within, the nodes' files are readable, because containers run as
# users of their own and get just the file that is theirs.
set -euo pipefail

folder=$1
patience_s=$2
shift 2
compose=("$@")

umask 077
mkdir -p "$folder"
chmod 0700 "$folder"
folder=$(cd "$folder" && pwd)
part=$(mktemp -d "$folder/part.XXXXXX")
trap 'rm -rf "$part"' EXIT

services=$("${compose[@]}" config --services)
mapfile -t brokers < <(grep '^rabbitmq' <<<"$services" | sort)
gateways=$(grep --count '^gateway-' <<<"$services")
urls=$(printf ',amqps://%s:5671/' "${brokers[@]}")
# As in the compose files.
queues=$([ "${#brokers[@]}" -eq 1 ] && echo named || echo session)

find "$folder" -maxdepth 1 -name '*.env' -exec cp {} "$part" \;
# Into the image's own folder only the image's user gets.
docker run --rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges:true \
    --user "$(id -u):$(id -g)" --workdir / --volume "$part:/credentials" \
    --env SYNOD_BROKER="${urls#,}" --env SYNOD_QUEUES="$queues" \
    synod:local broker init --credentials /credentials --gateways "$gateways" \
    --definitions /credentials/definitions.json >/dev/null

password_in() { sed -n 's|^SYNOD_BROKER=amqps://[^:]*:\([^@]*\)@.*|\1|p' "$1"; }
user_in() { sed -n 's|^SYNOD_BROKER=amqps://\([^:]*\):.*|\1|p' "$1"; }

# The files are in their place before RabbitMQ knows what they hold: if this is interrupted, a repetition
# completes it.
renewed=()
for new in "$part"/*.env; do
    name=$(basename "$new" .env)
    file=$folder/$name.env
    cmp --silent "$new" "$file" && continue
    [ -e "$file" ] && [ "$(password_in "$new")" = "$(password_in "$file")" ] || renewed+=("$name")
    case $name in
    operator | monitoring) ;;
    *) chmod 0644 "$new" ;;
    esac
    mv "$new" "$file"
done
[ "${#renewed[@]}" -eq 0 ] || echo "New RabbitMQ passwords, in .secrets/broker: ${renewed[*]}"

was_up=$("${compose[@]}" ps --quiet)
SERVICES="${brokers[*]}" compose/up.sh "$patience_s" "${compose[@]}"
in_broker() { "${compose[@]}" exec -T "${brokers[0]}" "$@"; }
# By way of a file: from its standard input rabbitmqctl read without end where this was tried.
# shellcheck disable=SC2016
in_broker sh -euc 'file=$(mktemp); trap "rm -f $file" EXIT; cat >"$file"; chmod 0644 "$file"
    rabbitmqctl --quiet import_definitions "$file" </dev/null' <"$part/definitions.json" >/dev/null
[ -n "$was_up" ] || exit 0

# A connection outlives the password by which it was opened, and a container the file that it mounts.
for name in ${renewed[@]+"${renewed[@]}"}; do
    user=$(user_in "$folder/$name.env")
    in_broker rabbitmqctl --quiet close_all_user_connections "$user" "it has a new password" </dev/null >/dev/null
    if grep --quiet --line-regexp "$name" <<<"$services"; then
        "${compose[@]}" rm --stop --force "$name" </dev/null
    fi
done
