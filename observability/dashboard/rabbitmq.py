"""The dashboard of RabbitMQ, one broker or a cluster of them: one series for each.

RabbitMQ 3.10 and 4.0 serve every metric that is used here (plugin `rabbitmq_prometheus`).
"""

from observability.dashboard.panels import RATE, Annotation, Dashboard, Panel, Query, Row

REACHED_PEERS = 'count by (instance) (erlang_vm_dist_node_state{peer!~"rabbitmqcli.*"} == 3)'
"""The other brokers that each broker reaches (3 is "up"); its command line tools connect likewise.
"""


def _ratio(used: str, limit: str) -> tuple[Query, ...]:
    return (Query(f"rabbitmq_{used} / rabbitmq_{limit}", "{{instance}}"),)


def _rate(metric: str, name: str) -> Query:
    expression = f"sum by (instance) (rate(rabbitmq_global_messages_{metric}_total[{RATE}]))"
    return Query(expression, f"{{{{instance}}}} {name}".rstrip())


_ROWS = (
    Row(
        "Is RabbitMQ healthy?",
        (
            Panel(
                "Brokers that answer",
                "Brokers whose metrics Prometheus reaches.",
                (Query('sum(up{job="rabbitmq"})', "up"),),
                kind="stat",
                good="red 0, green 1",
            ),
            Panel(
                "Memory alarms",
                "With one of them set, no broker of the cluster accepts messages.",
                (Query("sum(rabbitmq_alarms_memory_used_watermark)", "alarms"),),
                kind="stat",
                good="green 0, red 1",
            ),
            Panel(
                "Disk alarms",
                "With one of them set, no broker of the cluster accepts messages.",
                (Query("sum(rabbitmq_alarms_free_disk_space_watermark)", "alarms"),),
                kind="stat",
                good="green 0, red 1",
            ),
            Panel(
                "Connections",
                "A node has two: it publishes on one and consumes on the other.",
                (Query("sum(rabbitmq_connections)", "connections"),),
                kind="stat",
                good="red 0, green 1",
            ),
            Panel(
                "Brokers",
                "1 while Prometheus reaches the broker.",
                (Query('up{job="rabbitmq"}', "{{instance}}"),),
                kind="state",
            ),
            Panel(
                "Peers that each broker reaches",
                "Each of n brokers reaches n - 1 peers; a single broker has no series.",
                (Query(REACHED_PEERS, "{{instance}}"),),
            ),
        ),
    ),
    Row(
        "Does it have room?",
        (
            Panel(
                "Memory, of the watermark",
                "At 100% RabbitMQ sets the memory alarm and blocks all publishers.",
                _ratio("process_resident_memory_bytes", "resident_memory_limit_bytes"),
                unit="percentunit",
            ),
            Panel(
                "Free disk",
                "Below the limit RabbitMQ sets the disk alarm and blocks all publishers.",
                (
                    Query("rabbitmq_disk_space_available_bytes", "{{instance}}"),
                    Query("rabbitmq_disk_space_available_limit_bytes", "{{instance}} limit"),
                ),
                unit="bytes",
            ),
            Panel(
                "File descriptors, of the limit",
                "Connections and files of queues need one each.",
                _ratio("process_open_fds", "process_max_fds"),
                unit="percentunit",
            ),
            Panel(
                "Erlang processes, of the limit",
                "Connections, channels and queues need some each.",
                _ratio("erlang_processes_used", "erlang_processes_limit"),
                unit="percentunit",
            ),
        ),
    ),
    Row(
        "Do messages flow?",
        (
            Panel(
                "Messages published and delivered",
                "What brokers received from publishers and delivered to consumers each second.",
                (_rate("received", "published"), _rate("delivered", "delivered")),
                unit="ops",
            ),
            Panel(
                "Queue depth",
                "Ready: they wait for a consumer or a time. Unacknowledged: not processed yet.",
                (
                    Query("rabbitmq_queue_messages_ready", "{{instance}} ready"),
                    Query("rabbitmq_queue_messages_unacked", "{{instance}} unacknowledged"),
                ),
            ),
            Panel(
                "Messages redelivered",
                "A consumer's session ended before it acknowledged them.",
                (_rate("redelivered", ""),),
                unit="ops",
            ),
            Panel(
                "Connections by broker",
                "After a broker's failure its connections move to the others.",
                (Query("rabbitmq_connections", "{{instance}}"),),
            ),
        ),
    ),
)

_ANNOTATIONS = (
    Annotation(
        "A broker is gone", 'up{job="rabbitmq"} == 0', "{{instance}} does not answer", "red"
    ),
    Annotation(
        "An alarm is set",
        "rabbitmq_alarms_memory_used_watermark + rabbitmq_alarms_free_disk_space_watermark > 0",
        "{{instance}} blocks publishers",
        "orange",
    ),
)

RABBITMQ = Dashboard(uid="rabbitmq", title="RabbitMQ", rows=_ROWS, annotations=_ANNOTATIONS)
