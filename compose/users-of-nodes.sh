#!/usr/bin/env bash
# Refuses to start nodes beside others that log on to RabbitMQ otherwise: all as one user (`shared`), or
# each as its own (`own`). They would not hear each other.
#
#   compose/users-of-nodes.sh own|shared COMPOSE...
set -euo pipefail

wanted=$1
shift
compose=("$@")

# A line for each node that runs: its command and the label of compose/own-users.yml.
containers=$("${compose[@]}" ps --quiet)
described=$(xargs --no-run-if-empty docker inspect --format \
    '{{if .State.Running}}{{range .Config.Cmd}}{{.}} {{end}}{{index .Config.Labels "synod.broker-users"}}{{end}}' \
    <<<"$containers")
running=$(grep '^node ' <<<"$described" || true)
case $wanted in
own) others=$(grep --invert-match ' own$' <<<"$running" || true) ;;
shared) others=$(grep ' own$' <<<"$running" || true) ;;
*) echo "own or shared, not $wanted" >&2 && exit 2 ;;
esac
[ -z "$others" ] && exit 0

read -r _ first _ <<<"$others"
if [ "$wanted" = own ]; then
    cat >&2 <<TEXT
$first runs, and logs on to RabbitMQ as the user of all nodes. Nodes that log on as that user and nodes
with a user of their own don't hear each other, so stop all of them first (their data stays):

  make down && make up OWN_USERS=1
TEXT
else
    cat >&2 <<TEXT
$first runs, and logs on to RabbitMQ as a user of its own (OWN_USERS=1). Go on so:

  make up OWN_USERS=1

Or stop all nodes first, for one user again (their data stays): nodes that log on as that user and nodes
with a user of their own don't hear each other.

  make down && make up
TEXT
fi
exit 1
