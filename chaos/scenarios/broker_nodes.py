"""`chaos-broker-node-crash` and `chaos-broker-node-freeze`: nodes of a RabbitMQ cluster fail."""

from chaos.cluster.processes import ProcessFailed
from chaos.cluster.rabbitmq import BrokerFailedError
from chaos.scenarios.scenario import AFTER_S, Case, CaseSteps, Run, Scenario

BROKERS = ("rabbitmq-1", "rabbitmq-2", "rabbitmq-3")

CRASH_GAP_MAX_S = 5.0
FREEZE_GAP_MAX_S = 6.0
MAJORITY_LIMIT_S = 10.0
"""From the moment on at which a majority of the RabbitMQ nodes serves again."""

DEAD_S = 5.0
FROZEN_S = 20.0
PAUSED_PATIENCE_S = 30.0


# -- killed --------------------------------------------------------------------------------------


def _killed(broker: str) -> CaseSteps:
    async def steps(run: Run) -> None:
        await run.steady()
        await run.trace_all()
        at_ns = run.note(f"{broker} is killed", "fault")
        await run.target.kill_broker(broker)
        await run.linger(DEAD_S)
        await run.gap(f"{broker} was killed", at_ns, CRASH_GAP_MAX_S)
        returns_ns = run.note(f"{broker} comes back", "heal")
        await run.target.start_broker(broker)
        await brokers_whole(run, broker)
        await run.linger(AFTER_S)
        await run.gap(f"{broker} came back", returns_ns, CRASH_GAP_MAX_S)
        await run.whole()

    return steps


async def _majority_killed(run: Run) -> None:
    """The third node pauses itself, so no message is delivered until one of the two is back."""
    first, second, third = BROKERS
    await run.steady()
    await run.trace_all()
    at_ns = run.note(f"{first} and {second} are killed", "fault")
    for broker in (first, second):
        await run.target.kill_broker(broker)
    refused = await run.fleet.first(
        lambda asked: asked.changes and asked.begun_ns > at_ns and asked.fate == "unavailable",
        PAUSED_PATIENCE_S,
    )
    run.find(
        "without a majority of RabbitMQ nodes writes are refused for certain",
        refused is not None,
        "no write was refused" if refused is None else f"{refused.status} {refused.problem}",
    )
    # What was on its way to the third node may still be done until it pauses.
    await run.linger(DEAD_S)
    paused_ns = run.note(f"{third} is taken to have paused")
    # Clients may still wait for what they began before.
    await run.fleet.first(
        lambda asked: asked.changes and asked.begun_ns > paused_ns, PAUSED_PATIENCE_S
    )
    await run.linger(AFTER_S)
    judge_paused(run, paused_ns)
    await run.target.start_broker(first)
    back_ns = run.note(f"{first} is back, and with {third} a majority", "heal")
    await run.back("a majority of RabbitMQ nodes came back", back_ns, MAJORITY_LIMIT_S)
    await run.target.start_broker(second)
    await brokers_whole(run, first, second)
    await run.linger(AFTER_S)
    await run.whole()


def judge_paused(run: Run, since_ns: int) -> None:
    """Nothing that began since then is acknowledged, and writes are still tried."""
    begun = [asked for asked in run.fleet.asked if asked.changes and asked.begun_ns > since_ns]
    done = [asked for asked in begun if asked.fate == "done"]
    run.find(
        "without a majority of RabbitMQ nodes nothing is acknowledged",
        bool(begun) and not done,
        f"{len(done)} of {len(begun)} writes that began during the pause were acknowledged",
    )


# -- frozen --------------------------------------------------------------------------------------


def _frozen(broker: str) -> CaseSteps:
    async def steps(run: Run) -> None:
        await run.steady()
        await run.trace_all()
        at_ns = run.note(f"{broker} is frozen", "fault")
        await run.target.pause_broker(broker)
        try:
            await run.linger(FROZEN_S)
            await run.gap(f"{broker} was frozen", at_ns, FREEZE_GAP_MAX_S)
        finally:
            await run.target.resume_broker(broker)
        resumes_ns = run.note(f"{broker} goes on", "heal")
        await brokers_whole(run, broker)
        await run.linger(AFTER_S)
        await run.gap(f"{broker} went on", resumes_ns, FREEZE_GAP_MAX_S)
        await run.whole()

    return steps


async def brokers_whole(run: Run, *struck: str) -> None:
    """Wait until the RabbitMQ nodes would survive the loss of one more.

    RabbitMQ may leave one that was frozen or cut off parted from the others, or waiting for its
    tables, without end. Then this starts the struck ones anew, as docs/several-hosts.md tells
    operators to do.
    """
    try:
        await run.target.wait_brokers()
    except (BrokerFailedError, ProcessFailed) as failure:
        run.note(f"RabbitMQ does not heal by itself: {failure}")
        for broker in struck:
            run.note(f"{broker} is started anew", "heal")
            await run.target.kill_broker(broker)
            await run.target.start_broker(broker)
        await run.target.wait_brokers()
    run.note("every RabbitMQ node knows all others as running", "heal")


# -- the table -----------------------------------------------------------------------------------

BROKER_NODE_CRASH = Scenario(
    "broker-node-crash",
    "one of three RabbitMQ nodes dies, each in turn; then two at once",
    (
        *(Case(name, f"kill -9 to {name}; it comes back", _killed(name)) for name in BROKERS),
        Case("majority", "two die; all pauses until one of them is back", _majority_killed),
    ),
    brokers=len(BROKERS),
)

BROKER_NODE_FREEZE = Scenario(
    "broker-node-freeze",
    f"SIGSTOP for {FROZEN_S:g} s to one of three RabbitMQ nodes, each in turn",
    tuple(Case(name, f"{name} says nothing and closes nothing", _frozen(name)) for name in BROKERS),
    brokers=len(BROKERS),
)
