"""The dashboard of Synod: five questions, each a row of panels."""

from observability.dashboard.panels import RATE, Annotation, Dashboard, Panel, Query, Row, quantile

_ABOUT_FILES = 'route=~"files|directories|move|copy|transactions"'

_ROWS = (
    Row(
        "Is it healthy?",
        (
            Panel(
                "Nodes that answer",
                "Nodes that Prometheus reaches.",
                (Query('sum(up{job="synod"})', "up"),),
                kind="stat",
            ),
            Panel(
                "Nodes with a broker",
                "Nodes that are connected to RabbitMQ.",
                (Query("sum(paxos_node_broker_connected)", "connected"),),
                kind="stat",
            ),
            Panel(
                "Leaders",
                "1 is right; 0 means that no write is taken.",
                (Query("sum(paxos_proposer_leader)", "leaders"),),
                kind="stat",
                good="red 0, green 1, red 2",
            ),
            Panel(
                "Stores in the view",
                "Every one of them holds every acknowledged write.",
                (Query("max(paxos_learner_view_stores)", "stores"),),
                kind="stat",
                good="red 0, orange 2, green 3",
            ),
            Panel(
                "Requests by answer",
                "2xx were done; 503 did not happen and never will; 504 is not known yet.",
                (
                    Query(
                        f"sum by (status) (rate(paxos_gateway_requests_total{{{_ABOUT_FILES}}}"
                        f"[{RATE}]))",
                        "{{status}}",
                    ),
                ),
                unit="reqps",
            ),
            Panel(
                "Read leases",
                "Stores that may serve linearizable reads.",
                (Query("sum(paxos_store_read_lease)", "stores with a lease"),),
            ),
        ),
    ),
    Row(
        "Is it fast?",
        (
            Panel(
                "Time of a write",
                "From the head of a PUT to the end of its answer, at the gateway.",
                tuple(
                    Query(
                        f"histogram_quantile({part}, sum by (le) (rate("
                        f'paxos_gateway_request_seconds_bucket{{method="PUT"}}[{RATE}])))',
                        name,
                    )
                    for part, name in ((0.5, "p50"), (0.99, "p99"))
                ),
                unit="s",
            ),
            Panel(
                "Where the time goes, p50",
                "Paxos: accept to chosen. 2PC: prepare to decided. Disk: one commit of a journal.",
                (
                    Query(quantile(0.5, "paxos_proposer_accept_seconds"), "Paxos"),
                    Query(quantile(0.5, "paxos_learner_decision_seconds"), "2PC"),
                    Query(quantile(0.5, "paxos_node_journal_commit_seconds"), "disk"),
                ),
                unit="s",
            ),
            Panel(
                "Commands decided",
                "By outcome, at the coordinator.",
                (
                    Query(
                        f"sum by (outcome) (rate(paxos_learner_commands_total[{RATE}]))",
                        "{{outcome}}",
                    ),
                ),
                unit="ops",
            ),
            Panel(
                "Commands in a slot",
                "What a slot carries on average: more under load.",
                (
                    Query(
                        f"sum(rate(paxos_proposer_batch_commands_sum[{RATE}])) / "
                        f"sum(rate(paxos_proposer_batch_commands_count[{RATE}]))",
                        "commands",
                    ),
                ),
            ),
            Panel(
                "Messages",
                "Received by actors each second, by role.",
                (
                    Query(
                        f"sum by (role) (rate(paxos_node_messages_received_total[{RATE}]))",
                        "{{role}}",
                    ),
                ),
                unit="ops",
            ),
            Panel(
                "Time of a turn, p99",
                "A long turn makes everything behind it wait.",
                (Query(quantile(0.99, "paxos_node_turn_seconds", "le, role"), "{{role}}"),),
                unit="s",
            ),
        ),
    ),
    Row(
        "Who leads?",
        (
            Panel(
                "Leader",
                "1 for the proposer that leads.",
                (Query("paxos_proposer_leader", "{{node}}"),),
                kind="state",
            ),
            Panel(
                "Coordinator",
                "1 for the learner that drives two-phase commit.",
                (Query("paxos_learner_coordinator", "{{node}}"),),
                kind="state",
            ),
            Panel(
                "Epoch of the view",
                "Rises by one whenever a store or the coordinator is taken out or in.",
                (Query("max(paxos_learner_view_epoch)", "epoch"),),
            ),
            Panel(
                "Elections",
                "Ballots that proposers stood with, since each started.",
                (Query("sum(paxos_proposer_elections_total)", "ballots"),),
            ),
        ),
    ),
    Row(
        "What is stuck?",
        (
            Panel(
                "The log",
                "Chosen, and decided; a gap that stays is a slot in doubt.",
                (
                    Query("max(paxos_learner_scanned_slot)", "chosen"),
                    Query("max(paxos_learner_decided_slot)", "decided"),
                ),
            ),
            Panel(
                "Behind",
                "How many slots each store has still to apply.",
                (
                    Query(
                        "scalar(max(paxos_learner_decided_slot)) - paxos_store_applied_slot",
                        "{{node}}",
                    ),
                ),
            ),
            Panel(
                "In doubt",
                "Slots that a store has prepared without knowing their outcome.",
                (Query("paxos_store_in_doubt_slots", "{{node}}"),),
            ),
            Panel(
                "In flight",
                "Requests at the gateway, and slots that are proposed and not chosen.",
                (
                    Query("sum(paxos_gateway_requests_in_flight)", "requests"),
                    Query("sum(paxos_proposer_in_flight_slots)", "slots"),
                ),
            ),
            Panel(
                "Timers armed",
                "By role; each has one message under way.",
                (Query("sum by (role) (paxos_node_timers_armed)", "{{role}}"),),
            ),
            Panel(
                "Journals",
                "Bytes on disk, by role; truncation and snapshots keep them bounded.",
                (Query("sum by (role) (paxos_node_journal_bytes)", "{{role}}"),),
                unit="bytes",
            ),
        ),
    ),
    Row(
        "What failed when?",
        (
            Panel(
                "Nodes",
                "1 while Prometheus reaches the node.",
                (Query('up{job="synod"}', "{{instance}}"),),
                kind="state",
            ),
            Panel(
                "Files",
                "In the namespace, as each learner has it.",
                (Query("paxos_learner_files", "{{node}}"),),
            ),
        ),
    ),
)

_ANNOTATIONS = (
    Annotation(
        "Another leader",
        "sum by (node) (changes(paxos_proposer_leader[15s])) * on (node) paxos_proposer_leader > 0",
        "{{node}} leads",
        "orange",
    ),
    Annotation(
        "Another view",
        "max(delta(paxos_learner_view_epoch[15s])) > 0",
        "another view",
        "purple",
    ),
    Annotation("A node is gone", 'up{job="synod"} == 0', "{{instance}} does not answer", "red"),
)

SYNOD = Dashboard(uid="synod", title="Synod", rows=_ROWS, annotations=_ANNOTATIONS)
