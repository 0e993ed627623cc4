"""What a replica answers to a read, and which commands a read must wait for."""

from actors.messages import ReadReply, ReadRequest
from actors.namespace import Namespace
from actors.values import (
    Command,
    DeleteFile,
    DirectoryEntry,
    MakeDirectory,
    PutFile,
    RemoveDirectory,
)


def answer_read(state: Namespace, request: ReadRequest) -> ReadReply:
    """The answer at the state's applied slot."""
    if request.what == "result":
        return _answer_result(state, request)
    entry = state.lookup(request.path)
    if entry is None:
        return ReadReply(number=request.number, status="absent", applied=state.applied)
    if request.what == "list" and isinstance(entry, DirectoryEntry):
        children, more = state.list_directory(request.path, request.after, request.limit)
        return ReadReply(
            number=request.number,
            status="found",
            applied=state.applied,
            entry=entry,
            children=children,
            more=more,
        )
    return ReadReply(number=request.number, status="found", applied=state.applied, entry=entry)


def _answer_result(state: Namespace, request: ReadRequest) -> ReadReply:
    """What became of a command. Of a closed session nothing can come any more."""
    session = state.sessions.get(request.session)
    if session is None:
        return ReadReply(number=request.number, status="unknown_session", applied=state.applied)
    outcome = session.results.get(request.sequence)
    if outcome is not None:
        return ReadReply(
            number=request.number, status="found", applied=state.applied, outcome=outcome
        )
    if request.sequence <= session.acknowledged:
        return ReadReply(number=request.number, status="forgotten", applied=state.applied)
    status = "absent" if session.closed else "running"
    return ReadReply.model_validate(
        {"number": request.number, "status": status, "applied": state.applied}
    )


def touches(command: Command, request: ReadRequest) -> bool:
    """Whether the outcome of `command` can change the answer: the same path, one above it, or,
    for a listing, one below it.
    """
    if request.what == "result":
        return (command.session, command.sequence) == (request.session, request.sequence)
    operation = command.operation
    if not isinstance(operation, PutFile | DeleteFile | MakeDirectory | RemoveDirectory):
        return False
    return (
        operation.path == request.path
        or _is_below(request.path, operation.path)
        or _is_below(operation.path, request.path)
    )


def _is_below(path: str, ancestor: str) -> bool:
    return ancestor == "" or path.startswith(f"{ancestor}/")
