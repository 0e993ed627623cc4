"""Every message that crosses the broker, and the flows they make.

Founding (once; `actors.founding`)::

    acceptor-1            every member           acceptors
        | genesis.census ----->|                     |
        |<---- genesis.present |                     |
        | genesis.propose -------------------------->|   journalled
        |<------------------------------ genesis.held|
        | genesis.founded ---->|-------------------->|   journalled; voting may begin
    any node | genesis.inquiry --> acceptors ; acceptor | genesis.founded --> node

Election and lease (Paxos Made Simple, section 3; leases as in Paxos Made Live, section 5.2)::

    proposer              acceptors                all others
        | paxos.prepare ----->|   journalled
        |<----- paxos.promise |   (or paxos.reject)
        | lease.heartbeat --->|
        |<------ lease.granted|
        | leader.beat ----------------------------------->|

One write, six hops::

    gateway     leader      acceptors   learners     stores     coordinator (a learner)
      | client.submit ->|        |          |           |           |
      |         | paxos.accept ->|          |           |           |
      |         | paxos.accept ------------>|           |           |
      |         |        | paxos.accepted ->|           |           |
      |         |        |          | txn.prepare ----->|           |
      |         |        |          |           | txn.vote -------->|
      |<------------------------------------------- client.result   |
      |         |        |          |           |<-- txn.decision   |
      |         |<----------------- learn.progress      |           |

One read::

    gateway            store            leader
      | read.request --->| lease.ask ----->|   (unless it holds a lease)
      |<----- read.reply |<--- lease.grant |
      | chunk.get ------>|
      |<----- chunk.data |

An upload or a download of several chunks, which are kept until it ends::

    gateway          stores of the view     all stores
      | chunk.put -------->|                    |
      |<----- chunk.stored |                    |
      | chunk.keep ---------------------------->|   sent again and again
      | chunk.get -------->|                    |
      |<------- chunk.data |                    |

A node that lacks slots pulls them: `learn.pull` (chosen slots), `sync.pull` (decided ones).

A backup of the running cluster::

    gateway             all stores          a learner of the view, or a store
      | chunk.hold ------->|  no deletion       |
      | snapshot.pull ------------------------->|
      |<------------------------- snapshot.page |
      | chunk.get -------->|
      |<------- chunk.data |

The audit, which a learner copies from another one after it has copied a state::

    gateway            learner           another learner
      | audit.read ----->| audit.read ------>|
      |<----- audit.page |<------ audit.page |

A change of the view, and a store that joins::

    learner (coordinator, or taking over)   leader            all learners        stores
      | log.propose (View) ------------------>| paxos.accept ...-->|                 |
      | txn.inquiry ---------------------------------------------------------------->|   fenced
      |<---------------------------------------------------------------- txn.state   |
    store outside the view          learners and stores         coordinator
      | sync.pull / snapshot.pull ------>|                           |
      |<-- sync.decided / snapshot.page  |                           |
      | chunk.get ---------------------->|                           |
      | view.join -------------------------------------------------->| log.propose (View) ...

A change of the acceptors (docs/decisions/0026-membership.md)::

    gateway             leader                        acceptors, also the new one      learners
      | members.change --->| paxos.prepare ----------------->|   (until all have promised)  |
      |<-- members.answer  | paxos.accept (Members) -------->|   then NoOps, and Settled -->|
    a former disk that comes back <------------------------------------ members.superseded
"""

from typing import Annotated

from pydantic import Field, TypeAdapter

from actors.messages.audit import AUDIT_GRANTS_MAX, AuditPage, AuditRead, AuditRecord
from actors.messages.clients import (
    GroupInfo,
    LeaseAsk,
    LeaseGrant,
    LoginInfo,
    QuotaInfo,
    ReadReply,
    ReadRequest,
    ReadStatus,
    Redirect,
    Result,
    Submit,
    TokenInfo,
    UserInfo,
)
from actors.messages.commit import (
    Decided,
    Fenced,
    PullDecided,
    TxnDecision,
    TxnInquiry,
    TxnPrepare,
    TxnProgress,
    TxnState,
    TxnVote,
)
from actors.messages.contents import (
    HOLD_MS_MAX,
    KEEP_NAMES_MAX,
    ChunkData,
    ChunkGet,
    ChunkHold,
    ChunkKeep,
    ChunkMissing,
    ChunkPut,
    ChunkRefused,
    ChunkStored,
)
from actors.messages.diagnostics import LogCommand, LogEntry, LogPage, LogRead
from actors.messages.founding import (
    Census,
    Founded,
    HoldsGenesis,
    Inquiry,
    NodeHeartbeat,
    Present,
    ProposeGenesis,
    StaleDisk,
)
from actors.messages.membership import Action, ChangeAnswer, ChangeMember, Superseded
from actors.messages.paxos import (
    Accept,
    Accepted,
    AcceptedRange,
    Chosen,
    LeaderBeat,
    LearnerProgress,
    LeaseGranted,
    LeaseHeartbeat,
    Prepare,
    Promise,
    ProposeValue,
    PullChosen,
    Reject,
    Truncate,
)
from actors.messages.replication import (
    Diverged,
    JoinRequest,
    SnapshotPage,
    SnapshotPull,
    SnapshotRow,
)
from actors.values import Frozen

BULK = ("chunk.put", "chunk.data")
"""Types whose `data` is a raw body and which travel on the receiver's bulk lane."""

Message = Annotated[
    Census
    | Present
    | ProposeGenesis
    | HoldsGenesis
    | Inquiry
    | Founded
    | NodeHeartbeat
    | StaleDisk
    | Prepare
    | Promise
    | Accept
    | Accepted
    | Reject
    | LeaseHeartbeat
    | LeaseGranted
    | LeaderBeat
    | LearnerProgress
    | PullChosen
    | Chosen
    | AcceptedRange
    | ProposeValue
    | Truncate
    | TxnPrepare
    | TxnVote
    | TxnProgress
    | TxnDecision
    | TxnInquiry
    | TxnState
    | Fenced
    | PullDecided
    | Decided
    | Submit
    | Redirect
    | Result
    | LeaseAsk
    | LeaseGrant
    | ReadRequest
    | ReadReply
    | ChunkPut
    | ChunkStored
    | ChunkRefused
    | ChunkGet
    | ChunkData
    | ChunkMissing
    | ChunkHold
    | ChunkKeep
    | SnapshotPull
    | SnapshotPage
    | JoinRequest
    | Diverged
    | LogRead
    | LogPage
    | AuditRead
    | AuditPage
    | ChangeMember
    | ChangeAnswer
    | Superseded,
    Field(discriminator="type"),
]

AnyMessage = Frozen
"""Any of the above."""

MESSAGES: TypeAdapter[tuple[Message, ...]] = TypeAdapter(tuple[Message, ...])
"""Reads and writes the messages of one turn to one destination, as a JSON list."""

__all__ = [
    "AUDIT_GRANTS_MAX",
    "BULK",
    "HOLD_MS_MAX",
    "KEEP_NAMES_MAX",
    "MESSAGES",
    "Accept",
    "Accepted",
    "AcceptedRange",
    "Action",
    "AnyMessage",
    "AuditPage",
    "AuditRead",
    "AuditRecord",
    "Census",
    "ChangeAnswer",
    "ChangeMember",
    "Chosen",
    "ChunkData",
    "ChunkGet",
    "ChunkHold",
    "ChunkKeep",
    "ChunkMissing",
    "ChunkPut",
    "ChunkRefused",
    "ChunkStored",
    "Decided",
    "Diverged",
    "Fenced",
    "Founded",
    "GroupInfo",
    "HoldsGenesis",
    "Inquiry",
    "JoinRequest",
    "LeaderBeat",
    "LearnerProgress",
    "LeaseAsk",
    "LeaseGrant",
    "LeaseGranted",
    "LeaseHeartbeat",
    "LogCommand",
    "LogEntry",
    "LogPage",
    "LogRead",
    "LoginInfo",
    "Message",
    "NodeHeartbeat",
    "Prepare",
    "Present",
    "Promise",
    "ProposeGenesis",
    "ProposeValue",
    "PullChosen",
    "PullDecided",
    "QuotaInfo",
    "ReadReply",
    "ReadRequest",
    "ReadStatus",
    "Redirect",
    "Reject",
    "Result",
    "SnapshotPage",
    "SnapshotPull",
    "SnapshotRow",
    "StaleDisk",
    "Submit",
    "Superseded",
    "TokenInfo",
    "Truncate",
    "TxnDecision",
    "TxnInquiry",
    "TxnPrepare",
    "TxnProgress",
    "TxnState",
    "TxnVote",
    "UserInfo",
]
