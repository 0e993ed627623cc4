"""The parameters, bodies and responses of each route of the gateway, for `/openapi.json`.

Endpoints parse with these same parameters and bodies, and the type checker checks their responses
against these shapes. A test compares this table with the routes both ways, and another sends
requests made from it and checks each response.
"""

import re
from typing import Any

from gateway.http import parameters, schemas
from gateway.http import problems as p
from gateway.http.account_operations import ACCOUNTS
from gateway.http.member_schemas import ChangeAccepted, MemberList
from gateway.http.operation_shapes import ABOUT_FILE as _ABOUT_FILE
from gateway.http.operation_shapes import BYTES, EVENTS, HTML, JSON, Method
from gateway.http.operation_shapes import CONDITIONS as _IF
from gateway.http.operation_shapes import EVERYWHERE as EVERYWHERE
from gateway.http.operation_shapes import HOW_TO_READ as _HOW_TO_READ
from gateway.http.operation_shapes import HOW_TO_WRITE as _HOW_TO_WRITE
from gateway.http.operation_shapes import NO_CONTENT as _NO_CONTENT
from gateway.http.operation_shapes import NOT_MODIFIED as _NOT_MODIFIED
from gateway.http.operation_shapes import OF_NO_OPERATION as OF_NO_OPERATION
from gateway.http.operation_shapes import READ as _READ
from gateway.http.operation_shapes import READING as _READING
from gateway.http.operation_shapes import RESPONSE_HEADERS as RESPONSE_HEADERS
from gateway.http.operation_shapes import SENDING as _SENDING
from gateway.http.operation_shapes import WRITING as _WRITING
from gateway.http.operation_shapes import WRITTEN as _WRITTEN
from gateway.http.operation_shapes import ApiBody as ApiBody
from gateway.http.operation_shapes import ApiOperation as ApiOperation
from gateway.http.operation_shapes import ApiResponse as ApiResponse
from gateway.http.quotas import QuotaBody
from gateway.http.transactions import Steps, Transfer
from gateway.trace_events import TraceCommand

_FILES = {
    ("PUT", "/v1/files/{path}"): ApiOperation(
        tag="files",
        name="putFile",
        needs="paths",
        summary="Create or replace a file",
        description="Missing parent directories are created in the same command. The body's media "
        "type is stored with the file.",
        parameters=(
            parameters.FILE_PATH,
            *_IF,
            *_HOW_TO_WRITE,
            parameters.EXECUTABLE,
            parameters.MODIFIED,
            parameters.LAST_MODIFIED,
            parameters.META,
            parameters.REPR_DIGEST,
            parameters.CONTENT_DIGEST,
        ),
        body=ApiBody("The contents, of any type.", {BYTES: None, "*/*": None}),
        answers=(
            ApiResponse(
                200,
                "The file was replaced.",
                schemas.FileWritten,
                headers=(*_WRITTEN, "ETag", "Repr-Digest"),
            ),
            ApiResponse(
                201,
                "The file was created.",
                schemas.FileWritten,
                headers=(*_WRITTEN, "Location", "ETag", "Repr-Digest"),
            ),
        ),
        problems=(*_WRITING, *_SENDING, p.DIGEST_MISMATCH, p.UNSUPPORTED_CODING),
    ),
    ("GET", "/v1/files/{path}"): ApiOperation(
        tag="files",
        name="getFile",
        needs="paths",
        summary="Read a file, or a part of it",
        parameters=(
            parameters.FILE_PATH,
            *_HOW_TO_READ,
            *_IF,
            parameters.RANGE,
            parameters.IF_RANGE,
        ),
        answers=(
            ApiResponse(200, "The whole file, in its own type.", media="*/*", headers=_ABOUT_FILE),
            ApiResponse(
                206,
                "The part that `Range` names.",
                media="*/*",
                headers=(*_ABOUT_FILE, "Content-Range"),
            ),
            _NOT_MODIFIED,
        ),
        problems=(
            *_READING,
            p.INVALID_PATH,
            p.INVALID_HEADER,
            p.NOT_FOUND,
            p.CONFLICT,
            p.PRECONDITION_FAILED,
            p.RANGE_NOT_SATISFIABLE,
        ),
    ),
    ("HEAD", "/v1/files/{path}"): ApiOperation(
        tag="files",
        name="headFile",
        needs="paths",
        summary="Describe a file",
        parameters=(parameters.FILE_PATH, *_HOW_TO_READ, *_IF),
        answers=(
            ApiResponse(200, "The response to GET, without the contents.", headers=_ABOUT_FILE),
            _NOT_MODIFIED,
        ),
        problems=(
            *_READING,
            p.INVALID_PATH,
            p.INVALID_HEADER,
            p.NOT_FOUND,
            p.CONFLICT,
            p.PRECONDITION_FAILED,
        ),
    ),
    ("DELETE", "/v1/files/{path}"): ApiOperation(
        tag="files",
        name="deleteFile",
        needs="paths",
        summary="Remove a file",
        parameters=(parameters.FILE_PATH, *_IF, *_HOW_TO_WRITE),
        answers=(_NO_CONTENT,),
        problems=_WRITING,
    ),
}

_DIRECTORIES = {
    ("GET", "/v1/directories/{path}"): ApiOperation(
        tag="directories",
        name="listDirectory",
        needs="paths",
        summary="List a directory, page by page",
        parameters=(
            parameters.DIRECTORY_PATH,
            *_HOW_TO_READ,
            parameters.LISTING_LIMIT,
            parameters.LISTING_AFTER,
        ),
        answers=(
            ApiResponse(
                200, "Entries in the order of names.", schemas.Listing, headers=(*_READ, "Link")
            ),
        ),
        problems=(*_READING, p.INVALID_PATH, p.NOT_FOUND, p.CONFLICT),
        head=True,
    ),
    ("PUT", "/v1/directories/{path}"): ApiOperation(
        tag="directories",
        name="makeDirectory",
        needs="paths",
        summary="Make a directory and its missing parents",
        parameters=(parameters.DIRECTORY_PATH, *_HOW_TO_WRITE),
        answers=(
            ApiResponse(200, "It existed already.", schemas.DirectoryMade, headers=_WRITTEN),
            ApiResponse(
                201, "It was created.", schemas.DirectoryMade, headers=(*_WRITTEN, "Location")
            ),
        ),
        problems=_WRITING,
    ),
    ("DELETE", "/v1/directories/{path}"): ApiOperation(
        tag="directories",
        name="removeDirectory",
        needs="paths",
        summary="Remove a directory",
        parameters=(parameters.DIRECTORY_PATH, parameters.RECURSIVE, *_HOW_TO_WRITE),
        answers=(_NO_CONTENT,),
        problems=(*_WRITING, p.INVALID_QUERY, p.NOT_EMPTY),
    ),
}

_TRANSACTIONS = {
    ("POST", "/v1/move"): ApiOperation(
        tag="changes",
        name="move",
        needs="paths",
        summary="Move a file or a directory",
        parameters=_HOW_TO_WRITE,
        body=ApiBody("From where to where, and under which conditions.", {JSON: Transfer}),
        answers=(ApiResponse(200, "Moved.", schemas.Transferred, headers=_WRITTEN),),
        problems=(*_WRITING, p.NOT_JSON, *_SENDING),
    ),
    ("POST", "/v1/copy"): ApiOperation(
        tag="changes",
        name="copy",
        needs="paths",
        summary="Copy a file or a directory",
        parameters=_HOW_TO_WRITE,
        body=ApiBody("From where to where, and under which conditions.", {JSON: Transfer}),
        answers=(ApiResponse(200, "Copied.", schemas.Transferred, headers=_WRITTEN),),
        problems=(*_WRITING, p.NOT_JSON, *_SENDING),
    ),
    ("POST", "/v1/transactions"): ApiOperation(
        tag="changes",
        name="transaction",
        needs="paths",
        summary="Run several steps, all or none",
        parameters=_HOW_TO_WRITE,
        body=ApiBody("The steps, in order.", {JSON: Steps}),
        answers=(ApiResponse(200, "All were done.", schemas.TransactionDone, headers=_WRITTEN),),
        problems=(*_WRITING, p.NOT_JSON, *_SENDING, p.NOT_EMPTY),
    ),
    ("GET", "/v1/watch"): ApiOperation(
        tag="changes",
        name="watch",
        needs="paths",
        summary="Watch changes below a prefix, as server-sent events",
        description="Ids are the same at every gateway, so a watch can continue at another one.",
        parameters=(parameters.WATCH_PREFIX, parameters.WATCH_AFTER, parameters.LAST_EVENT_ID),
        answers=(ApiResponse(200, "Events, until the client goes away.", media=EVENTS),),
        problems=(*_READING, p.INVALID_PATH, p.INVALID_HEADER),
        events={
            "ready": schemas.WatchReady,
            "change": schemas.FileChange,
            "reset": schemas.WatchReset,
        },
        head=True,
    ),
}

_DIAGNOSTICS = {
    ("GET", "/v1/requests"): ApiOperation(
        tag="observation",
        name="listRequests",
        needs="operate",
        summary="The requests in progress and those answered lately",
        parameters=(parameters.REQUESTS_LIMIT,),
        answers=(ApiResponse(200, "Newest first.", schemas.Requests),),
        problems=(p.INVALID_QUERY,),
        head=True,
    ),
    ("GET", "/v1/requests/{request}"): ApiOperation(
        tag="observation",
        name="getRequest",
        needs="paths",
        summary="The result of a write",
        parameters=(parameters.REQUEST,),
        answers=(
            ApiResponse(200, "Running or decided.", schemas.RequestResult, headers=("Synod-Slot",)),
        ),
        problems=(p.NOT_FOUND, p.FORGOTTEN, p.UNAVAILABLE),
        head=True,
    ),
    ("GET", "/v1/traces"): ApiOperation(
        tag="observation",
        name="listTraces",
        needs="operate",
        summary="What nodes record, and the newest traces",
        answers=(ApiResponse(200, "Newest requests first.", schemas.Traces),),
        head=True,
    ),
    ("POST", "/v1/traces"): ApiOperation(
        tag="observation",
        name="record",
        needs="operate",
        summary="Change what all nodes record",
        body=ApiBody("Everything for some seconds, or a mode.", {JSON: TraceCommand}),
        answers=(ApiResponse(202, "The command was sent to the nodes.", TraceCommand),),
        problems=(p.NOT_JSON, p.UNAVAILABLE),
    ),
    ("GET", "/v1/traces/{request}"): ApiOperation(
        tag="observation",
        name="getTrace",
        needs="operate",
        summary="The trace of one request, message by message",
        parameters=(parameters.REQUEST,),
        answers=(ApiResponse(200, "The records so far.", schemas.RequestTrace),),
        problems=(p.NOT_FOUND,),
        head=True,
    ),
    ("GET", "/v1/events"): ApiOperation(
        tag="observation",
        name="events",
        needs="operate",
        summary="Changes of the cluster and figures of each second, as server-sent events",
        parameters=(
            parameters.TOPICS,
            parameters.EVENTS_AFTER,
            parameters.FIGURES_AFTER,
            parameters.LAST_EVENT_ID,
        ),
        answers=(ApiResponse(200, "Events, until the client goes away.", media=EVENTS),),
        problems=(p.INVALID_QUERY,),
        events={
            "change": schemas.ClusterChange,
            "figures": schemas.Figures,
            "history": schemas.History,
            "cluster": schemas.ClusterStatus | schemas.TopicUnavailable,
            "requests": schemas.Requests | schemas.TopicUnavailable,
            "log": schemas.Log | schemas.TopicUnavailable,
        },
        head=True,
    ),
    ("GET", "/v1/log"): ApiOperation(
        tag="observation",
        name="getLog",
        needs="operate",
        summary="The log, slot by slot",
        parameters=(parameters.LOG_BEFORE, parameters.LOG_LIMIT, parameters.LOG_COMMANDS),
        answers=(ApiResponse(200, "Newest first.", schemas.Log),),
        problems=_READING,
        head=True,
    ),
    ("GET", "/v1/cluster"): ApiOperation(
        tag="observation",
        name="getCluster",
        needs="operate",
        summary="The cluster as this gateway has heard of it",
        answers=(ApiResponse(200, "View, nodes, leases, limits.", schemas.ClusterStatus),),
        problems=(p.UNAVAILABLE,),
        head=True,
    ),
    ("GET", "/metrics"): ApiOperation(
        tag="observation",
        name="metrics",
        needs="operate",
        summary="All metrics of this gateway",
        answers=(ApiResponse(200, "In the text form of Prometheus.", media="text/plain"),),
        head=True,
    ),
    ("GET", "/healthz"): ApiOperation(
        tag="observation",
        name="healthz",
        needs="nothing",
        summary="Whether this gateway is alive",
        answers=(ApiResponse(200, "It is alive, and has not halted.", schemas.Healthy),),
        problems=(p.UNAVAILABLE,),
        open=True,
        head=True,
    ),
    ("GET", "/readyz"): ApiOperation(
        tag="observation",
        name="readyz",
        needs="nothing",
        summary="Whether a write, or a read, could start now",
        parameters=(parameters.READY_FOR,),
        answers=(ApiResponse(200, "It could.", schemas.Ready),),
        problems=(p.INVALID_QUERY, p.UNAVAILABLE),
        open=True,
        head=True,
    ),
}

_BACKUP = {
    ("POST", "/v1/backup"): ApiOperation(
        tag="backup",
        name="beginBackup",
        needs="backup",
        summary="Begin or prolong a backup",
        description="For `hold_ms` no store deletes a chunk; send it again in time.",
        answers=(ApiResponse(200, "What to copy.", schemas.BackupBegun),),
        problems=(p.UNAVAILABLE,),
    ),
    ("GET", "/v1/backup/rows"): ApiOperation(
        tag="backup",
        name="getBackupRows",
        needs="backup",
        summary="A page of the state's rows",
        description="Page 0 of another state, if the one that is named is gone.",
        parameters=(
            parameters.ROWS_AT_LEAST,
            parameters.ROWS_SOURCE,
            parameters.ROWS_SLOT,
            parameters.ROWS_PAGE,
        ),
        answers=(ApiResponse(200, "With their digest.", schemas.BackupRows),),
        problems=_READING,
        head=True,
    ),
    ("GET", "/v1/chunks/{sha256}"): ApiOperation(
        tag="backup",
        name="getChunk",
        needs="backup",
        summary="The bytes of a chunk",
        parameters=(parameters.CHUNK,),
        answers=(ApiResponse(200, "The bytes.", media=BYTES, headers=("ETag", "Repr-Digest")),),
        problems=(p.NOT_FOUND, p.UNAVAILABLE),
        head=True,
    ),
}

_HOW_MEMBERS_CHANGE = (
    "The change goes on by itself; `/v1/members` shows what it waits for. One change at a time; it "
    "is refused if fewer than a quorum would be alive. If the problem's `again` is true, what is "
    "missing comes by itself. Asking again is safe."
)
_CHANGES_MEMBERS: Any = {
    "parameters": (parameters.MEMBER,),
    "answers": (ApiResponse(202, "It has begun.", ChangeAccepted),),
    "problems": (p.NOT_FOUND, p.CHANGE_REFUSED, p.UNAVAILABLE),
}

_MEMBERSHIP = {
    ("GET", "/v1/members"): ApiOperation(
        tag="membership",
        name="listMembers",
        needs="operate",
        summary="The members of all roles, their disks, and the changes that are under way",
        description="Also nodes that run and wait to be added, and those that were removed.",
        answers=(ApiResponse(200, "In the order of roles and numbers.", MemberList),),
        problems=(p.UNAVAILABLE,),
        head=True,
    ),
    ("POST", "/v1/members/{name}/replace"): ApiOperation(
        tag="membership",
        name="replaceMember",
        needs="operate",
        summary="Put the disk on which a member runs now in the place of the one that it lost",
        description="It runs under its name on an empty disk. " + _HOW_MEMBERS_CHANGE,
        **_CHANGES_MEMBERS,
    ),
    ("PUT", "/v1/members/{name}"): ApiOperation(
        tag="membership",
        name="addMember",
        needs="operate",
        summary="Make a node a member",
        description="It runs on an empty disk, with the settings of all others. "
        + _HOW_MEMBERS_CHANGE,
        **_CHANGES_MEMBERS,
    ),
    ("DELETE", "/v1/members/{name}"): ApiOperation(
        tag="membership",
        name="removeMember",
        needs="operate",
        summary="Make a member none any more",
        description="Its process ends by itself. " + _HOW_MEMBERS_CHANGE,
        **_CHANGES_MEMBERS,
    ),
}

_PAGES = {
    ("GET", "/"): ApiOperation(
        tag="pages",
        name="ui",
        needs="credentials",
        summary="The web UI",
        answers=(
            ApiResponse(200, "The page.", media=HTML, headers=("ETag",)),
            ApiResponse(304, "The same."),
        ),
        head=True,
    ),
    ("GET", "/static/{name}"): ApiOperation(
        tag="pages",
        name="static",
        needs="credentials",
        summary="A script, a style sheet or a picture of the web UI",
        parameters=(parameters.STATIC_NAME,),
        answers=(
            ApiResponse(200, "The file.", media="*/*", headers=("ETag",)),
            ApiResponse(304, "The same."),
        ),
        problems=(p.NOT_FOUND,),
        head=True,
    ),
    ("GET", "/docs"): ApiOperation(
        tag="pages",
        name="docs",
        needs="credentials",
        summary="This description as a page, which works offline",
        answers=(
            ApiResponse(200, "The page.", media=HTML, headers=("ETag",)),
            ApiResponse(304, "The same."),
        ),
        head=True,
    ),
    ("GET", "/openapi.json"): ApiOperation(
        tag="pages",
        name="openapi",
        needs="credentials",
        summary="This description",
        answers=(
            ApiResponse(200, "OpenAPI 3.1.", dict[str, Any], headers=("ETag",)),
            ApiResponse(304, "The same."),
        ),
        head=True,
    ),
}

_AUDIT = {
    ("GET", "/v1/audit"): ApiOperation(
        tag="audit",
        name="readAudit",
        needs="paths",
        summary="Records of who did what",
        description="One for each step of each command that the log decides, in its order. The "
        "caller needs `admin` on `prefix`; paths that it may not read are hidden. To follow, ask "
        "with `order=oldest`, `after` the last `through`, and `wait_s`.",
        parameters=(
            parameters.AUDIT_AFTER,
            parameters.AUDIT_BEFORE,
            parameters.AUDIT_LIMIT,
            parameters.AUDIT_ORDER,
            parameters.AUDIT_PREFIX,
            parameters.AUDIT_PRINCIPAL,
            parameters.AUDIT_OPERATION,
            parameters.AUDIT_RESULT,
            parameters.AUDIT_SINCE,
            parameters.AUDIT_UNTIL,
            parameters.AUDIT_WAIT,
            parameters.AUDIT_LEARNER,
        ),
        answers=(ApiResponse(200, "A page of records.", schemas.AuditRecords),),
        problems=(*_READING, p.INVALID_PATH),
        head=True,
    ),
    ("GET", "/v1/audit/refusals"): ApiOperation(
        tag="audit",
        name="readRefusals",
        needs="paths",
        summary="What this gateway refused lately, and who logged in",
        description="The caller needs `admin` on the root. It is in the memory of this gateway "
        "alone, bounded and throttled.",
        parameters=(parameters.REFUSALS_LIMIT,),
        answers=(ApiResponse(200, "The newest first.", schemas.RefusalPage),),
        problems=_READING,
        head=True,
    ),
}

_QUOTAS = {
    ("GET", "/v1/quotas/{path}"): ApiOperation(
        tag="quotas",
        name="listQuotas",
        needs="paths",
        summary="The quotas at and below a path, and what is used of them",
        description="The caller needs `admin` on the path.",
        parameters=(parameters.DIRECTORY_PATH,),
        answers=(ApiResponse(200, "In the order of paths.", schemas.QuotaList),),
        problems=(p.INVALID_PATH, p.UNAVAILABLE),
    ),
    ("PUT", "/v1/quotas/{path}"): ApiOperation(
        tag="quotas",
        name="setQuota",
        needs="paths",
        summary="Bound what may lie below a path",
        description="It replaces the path's former quota. The caller needs `admin` on the "
        "directory above: who administers a path can't lift what bounds it. A quota may be less "
        "than what is used: then nothing is done that uses more. A write beyond it is 507 "
        "`over-quota`, "
        "whose `path` and `detail` name the quota and what is used.",
        parameters=(parameters.DIRECTORY_PATH, *_HOW_TO_WRITE),
        body=ApiBody("The most entries and bytes of contents.", {JSON: QuotaBody}),
        answers=(ApiResponse(200, "The quota.", schemas.QuotaSet, headers=_WRITTEN),),
        problems=(*_WRITING, *_SENDING, p.NOT_JSON),
    ),
    ("DELETE", "/v1/quotas/{path}"): ApiOperation(
        tag="quotas",
        name="removeQuota",
        needs="paths",
        summary="Remove the quota of a path",
        description="The caller needs `admin` on the directory above.",
        parameters=(parameters.DIRECTORY_PATH, *_HOW_TO_WRITE),
        answers=(_NO_CONTENT,),
        problems=_WRITING,
    ),
}

OPERATIONS: dict[tuple[Method, str], ApiOperation] = {
    **_FILES,
    **_DIRECTORIES,
    **_TRANSACTIONS,
    **_DIAGNOSTICS,
    **ACCOUNTS,
    **_AUDIT,
    **_QUOTAS,
    **_MEMBERSHIP,
    **_BACKUP,
    **_PAGES,
}
"""By method and path."""


def operation_of(method: Method, path: str) -> ApiOperation | None:
    """The operation of a method of a route, whose path is as Starlette writes it."""
    path = re.sub(r"\{(\w+):\w+\}", r"{\1}", path)
    found = OPERATIONS.get((method, path))
    if found is None and method == "HEAD":
        found = OPERATIONS.get(("GET", path))
    return found
