#!/usr/bin/env bash
# Starts all containers and waits until they are well. If they are not in time, it prints of each ill
# one its state and its last words, then the likely cause if it knows it, and fails.
#
#   compose/up.sh PATIENCE_S COMPOSE...     for instance: compose/up.sh 240 docker compose
#
# With SERVICES only these ones.
set -euo pipefail

patience_s=$1
shift
compose=("$@")
read -ra services <<<"${SERVICES:-}"

LAST_LINES=15
COLUMNS_MAX=400
# RabbitMQ's words.
REFUSED='invalid credentials'

# The containers that are not well: the id of each.
ill() {
    "${compose[@]}" ps --all --quiet ${services[@]+"${services[@]}"} |
        xargs --no-run-if-empty docker inspect --format \
            '{{.Id}} {{.State.Status}}{{with .State.Health}} {{.Status}}{{end}}' |
        sed -n '/ running healthy$/!s/ .*//p'
}

describe() {
    local id
    for id in "$@"; do
        echo
        docker inspect "$id" --format '{{index .Config.Labels "com.docker.compose.service"}}: {{
            .State.Status}}{{if .State.ExitCode}} with code {{.State.ExitCode}}{{end}}{{
            with .State.Health}}, {{.Status}}{{end}}{{
            if .RestartCount}}, restarted {{.RestartCount}} times{{end}}'
        # The last line of a check's answer says why a container is ill.
        docker inspect "$id" --format '{{with .State.Health}}{{range .Log}}{{println .Output}}{{end}}{{end}}' |
            grep --text '[^[:space:]]' | tail -n 1 | sed 's/^/  health check: /' || true
        docker logs --tail "$LAST_LINES" "$id" 2>&1 | cut -c "1-$COLUMNS_MAX" | sed 's/^/  | /'
    done
}

# The volumes of the brokers that refuse the password of .env.
refusing_volumes() {
    local id
    for id in $("${compose[@]}" ps --all --quiet); do
        # Not with --quiet: it ends before the log does, which then counts as a failure.
        if docker logs "$id" 2>&1 | grep --text "$REFUSED" >/dev/null; then
            docker inspect "$id" --format \
                '{{range .Mounts}}{{if eq .Destination "/var/lib/rabbitmq"}}{{println .Name}}{{end}}{{end}}'
        fi
    done | grep . | sort --unique
}

hint() {
    local volumes
    if volumes=$(refusing_volumes); then
        cat <<TEXT

Likely cause: RabbitMQ refuses the password of .env (its log says "$REFUSED"). A volume keeps the
password that it was made with, and RabbitMQ's was made with another one. It holds messages under
way and in quarantine, but no file. Remove it and start again (not with "down --volumes", which
removes the files, too):

  ${compose[*]} down
  docker volume rm ${volumes//$'\n'/ }

Or write the former RABBITMQ_PASSWORD into .env.
TEXT
    else
        printf '\nMore of what a container said: %s logs SERVICE\n' "${compose[*]}"
    fi
}

started=true
"${compose[@]}" up --detach --remove-orphans ${services[@]+"${services[@]}"} || started=false
until=$((SECONDS + patience_s))
while found=$(ill) && [ -n "$found" ]; do
    if ! $started || [ "$SECONDS" -ge "$until" ]; then
        {
            $started && echo "Not well within $patience_s s:" || echo "Not started:"
            # shellcheck disable=SC2086
            describe $found
            hint
        } >&2
        exit 1
    fi
    sleep 2
done
$started
