"""How long a learner waits before it acts on silence: all of these times, and how they relate.

None of them is about safety. A learner that waits too briefly proposes an `Abort` or a `View` that
was not needed, and one that waits too long lets clients wait: the log decides the outcome. They
stand together because each makes sense only beside the others (docs/decisions/0009 and 0010).
"""

from actors.numbers import Milliseconds

RESEND_MS: Milliseconds = 400
"""A prepare or an inquiry without an answer is sent again: several hops of a slow broker."""

PING_MS: Milliseconds = 500
"""A store that owes an answer and says nothing is asked for any: a lost message is no death."""

SILENT_MS: Milliseconds = 1_000
"""A node that owes an answer has given no sign of life: it is taken for dead."""

SILENT_MS_MAX: Milliseconds = 3_000
"""The same where votes are slow anyway, so that silence says less."""

STALLED_MS: Milliseconds = 500
"""Chosen slots stay undecided: the other learner looks at whether the coordinator is silent."""

ABORT_SUSPECT_MS: Milliseconds = 5_000
"""A store made one slot abort: until the View without it later slots wait instead of aborting."""

UNRESPONSIVE_MS: Milliseconds = 8_000
"""A store gives signs of life and no answer: it is dropped all the same."""

UNRESPONSIVE_COORDINATOR_MS: Milliseconds = 10_000
"""The same of a coordinator: the other learner takes over."""

JOINING_MS: Milliseconds = 4_000
"""A store that asks to join asks once a second; one that stopped asking is not added."""

AWAY_MS: Milliseconds = 1_500
"""A learner that took no turn for so long was away itself: that time counts as no silence."""

TAKEOVERS_BACK_OFF_MOST = 16
"""Patience with a coordinator doubles with each takeover that led to nothing, up to this factor."""

COORDINATOR_NEAR_SLOTS = 64
"""A learner that has so many more slots to read does not take over: it would have to read first."""

JOINING_NEAR_SLOTS = 256
"""A store that has so many more slots to apply is not added: it would hold up new ones."""

# A store is asked again, and then pinged, before its silence counts.
assert RESEND_MS <= PING_MS < SILENT_MS <= SILENT_MS_MAX
# A View without the silent store comes before the slots that wait for it are given up.
assert SILENT_MS_MAX < ABORT_SUSPECT_MS
# The coordinator has the time to drop a store that holds everything up, before it is replaced.
assert UNRESPONSIVE_MS < UNRESPONSIVE_COORDINATOR_MS
# A store is near for longer than it takes the coordinator to hear of it.
assert COORDINATOR_NEAR_SLOTS <= JOINING_NEAR_SLOTS
