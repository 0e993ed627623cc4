"""The times after which a learner acts on silence, and the relations that must hold between them.

None of them matters to safety. A learner that waits too briefly proposes an `Abort` or a `View`
that was not needed, and one that waits too long lets clients wait: the log decides the outcome
(docs/decisions/0009 and 0010).
"""

from actors.numbers import Milliseconds

RESEND_MS: Milliseconds = 400
"""A prepare or an inquiry without a reply is sent again: several hops of a slow broker."""

PING_MS: Milliseconds = 500
"""A silent store whose reply is awaited is pinged: the message may have been lost."""

SILENT_MS: Milliseconds = 1_000
"""A node whose reply is awaited is taken for dead after this time without a sign of life."""

SILENT_MS_MAX: Milliseconds = 3_000
"""The same where votes are slow, so that silence means less."""

STALLED_MS: Milliseconds = 500
"""Chosen slots stay undecided: the other learner checks whether the coordinator is silent."""

ABORT_SUSPECT_MS: Milliseconds = 5_000
"""After a store made one slot abort, later slots wait this long for a View without the store."""

UNRESPONSIVE_MS: Milliseconds = 8_000
"""A store that gives signs of life and no reply is dropped all the same."""

UNRESPONSIVE_COORDINATOR_MS: Milliseconds = 10_000
"""The same for a coordinator: the other learner takes over."""

JOINING_MS: Milliseconds = 4_000
"""A joining store asks once a second; one that stopped asking for this long is not added."""

AWAY_MS: Milliseconds = 1_500
"""A learner without a turn for this long was away itself: the silence of others does not count."""

TAKEOVERS_BACK_OFF_MOST = 16
"""Patience with a coordinator doubles with each takeover in vain, up to this factor."""

COORDINATOR_NEAR_SLOTS = 64
"""A learner that is further behind than this does not take over: it has to catch up first."""

JOINING_NEAR_SLOTS = 256
"""A store that is further behind than this is not added: it would hold up new slots."""

# A message is sent again, and the store pinged, before its silence counts.
assert RESEND_MS <= PING_MS < SILENT_MS <= SILENT_MS_MAX
# The View without a silent store comes before the slots that wait for it are aborted.
assert SILENT_MS_MAX < ABORT_SUSPECT_MS
# The coordinator has time to drop a store that holds everything up before it is replaced itself.
assert UNRESPONSIVE_MS < UNRESPONSIVE_COORDINATOR_MS
# A coordinator may itself be behind when it judges whether a store is near.
assert COORDINATOR_NEAR_SLOTS <= JOINING_NEAR_SLOTS
