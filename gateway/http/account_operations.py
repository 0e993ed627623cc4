"""The descriptions of the routes about tokens, users, groups and sessions; see
`gateway.http.operations`.
"""

from gateway.http import parameters, schemas
from gateway.http import problems as p
from gateway.http.account_bodies import (
    GroupChangeBody,
    Login,
    NewGroupBody,
    NewUserBody,
    PasswordBody,
    UserChangeBody,
)
from gateway.http.operation_shapes import (
    HOW_TO_WRITE,
    JSON,
    NO_CONTENT,
    READING,
    WRITTEN,
    ApiBody,
    ApiOperation,
    ApiResponse,
    Kinds,
    Method,
)
from gateway.http.token_bodies import NewTokenBody

_REMOVING: Kinds = (
    p.INVALID_HEADER,
    p.NOT_FOUND,
    p.RUNNING,
    p.REQUEST_TOO_LARGE,
    p.KEY_REUSED,
    p.BUSY,
    p.ABORTED,
    p.UNAVAILABLE,
    p.UNKNOWN,
    p.DISK_FULL,
)
_MAKING: Kinds = (
    p.INVALID_PATH,
    p.NOT_FOUND,
    p.NOT_JSON,
    p.CONFLICT,
    p.REQUEST_TOO_LARGE,
    p.BUSY,
    p.ABORTED,
    p.UNAVAILABLE,
    p.UNKNOWN,
    p.OVER_QUOTA,
    p.DISK_FULL,
    p.TOO_LARGE,
    p.INCOMPLETE_BODY,
    p.BODY_TIMEOUT,
)
_CHANGING: Kinds = (*_REMOVING, *_MAKING)

_TOKENS = {
    ("GET", "/v1/whoami"): ApiOperation(
        tag="tokens",
        name="whoAmI",
        needs="credentials",
        summary="Who the caller is, and what it may do",
        answers=(ApiResponse(200, "The administrator, a token or a session.", schemas.WhoAmI),),
        problems=(p.UNAVAILABLE,),
        head=True,
    ),
    ("GET", "/v1/tokens"): ApiOperation(
        tag="tokens",
        name="listTokens",
        needs="paths",
        summary="The API tokens that the caller may revoke",
        description="Its own, and those of whose grants it has `admin` on all paths.",
        parameters=(parameters.TOKENS_AFTER, parameters.TOKENS_LIMIT),
        answers=(ApiResponse(200, "In the order of ids.", schemas.TokenPage),),
        problems=READING,
        head=True,
    ),
    ("POST", "/v1/tokens"): ApiOperation(
        tag="tokens",
        name="createToken",
        needs="paths",
        summary="Make an API token",
        description="The caller needs `admin` on the path of each grant. The response is the only "
        "one that ever shows the token. `expires_after_ms` counts the time in which the cluster "
        "has a leader, so a token may live for longer, never for less.",
        body=ApiBody("What the token may do, and for how long.", {JSON: NewTokenBody}),
        answers=(ApiResponse(201, "The token.", schemas.TokenCreated, headers=WRITTEN),),
        problems=_MAKING,
    ),
    ("DELETE", "/v1/tokens/{token}"): ApiOperation(
        tag="tokens",
        name="revokeToken",
        needs="paths",
        summary="Revoke an API token",
        description="Every command and read that follows in the order of the log is refused.",
        parameters=(parameters.TOKEN, *HOW_TO_WRITE),
        answers=(NO_CONTENT,),
        problems=_REMOVING,
    ),
}

_USERS = {
    ("GET", "/v1/users"): ApiOperation(
        tag="users",
        name="listUsers",
        needs="paths",
        summary="The users",
        description="All for who has `admin` on the root; others see themselves.",
        parameters=(parameters.NAMES_AFTER, parameters.NAMES_LIMIT),
        answers=(ApiResponse(200, "In their order.", schemas.UserPage),),
        problems=READING,
        head=True,
    ),
    ("POST", "/v1/users"): ApiOperation(
        tag="users",
        name="createUser",
        needs="paths",
        summary="Make a user",
        description="The caller needs `admin` on the root. The gateway hashes the password "
        "(Argon2id); only the hash is kept, and shown to nobody.",
        body=ApiBody("The user.", {JSON: NewUserBody}),
        answers=(ApiResponse(201, "Made.", schemas.Changed, headers=(*WRITTEN, "Location")),),
        problems=(*_MAKING, p.NOT_FOUND),
    ),
    ("PATCH", "/v1/users/{user}"): ApiOperation(
        tag="users",
        name="changeUser",
        needs="paths",
        summary="Grant and revoke, join and leave groups",
        description="The caller needs `admin` on the path of each grant, and on the root for "
        "groups.",
        parameters=(parameters.USER, *HOW_TO_WRITE),
        body=ApiBody("What to change.", {JSON: UserChangeBody}),
        answers=(NO_CONTENT,),
        problems=_CHANGING,
    ),
    ("PUT", "/v1/users/{user}/password"): ApiOperation(
        tag="users",
        name="setPassword",
        needs="paths",
        summary="Set a password, which ends all sessions of the user",
        description="Users set their own, and give the current one. To set another's needs `admin` "
        "on the root.",
        parameters=(parameters.USER,),
        body=ApiBody("The password.", {JSON: PasswordBody}),
        answers=(NO_CONTENT,),
        problems=(*_MAKING, p.NOT_FOUND),
    ),
    ("DELETE", "/v1/users/{user}"): ApiOperation(
        tag="users",
        name="removeUser",
        needs="paths",
        summary="Remove a user, with all of its sessions",
        description="The caller needs `admin` on the root. Tokens that the user has made stay.",
        parameters=(parameters.USER, *HOW_TO_WRITE),
        answers=(NO_CONTENT,),
        problems=_REMOVING,
    ),
    ("GET", "/v1/groups"): ApiOperation(
        tag="groups",
        name="listGroups",
        needs="paths",
        summary="The groups",
        description="All for who has `admin` on the root; others see those that they are in.",
        parameters=(parameters.NAMES_AFTER, parameters.NAMES_LIMIT),
        answers=(ApiResponse(200, "In their order.", schemas.GroupPage),),
        problems=READING,
        head=True,
    ),
    ("POST", "/v1/groups"): ApiOperation(
        tag="groups",
        name="createGroup",
        needs="paths",
        summary="Make a group, whose grants all its users and tokens have",
        description="The caller needs `admin` on the root.",
        body=ApiBody("The group.", {JSON: NewGroupBody}),
        answers=(ApiResponse(201, "Made.", schemas.Changed, headers=(*WRITTEN, "Location")),),
        problems=_MAKING,
    ),
    ("PATCH", "/v1/groups/{group}"): ApiOperation(
        tag="groups",
        name="changeGroup",
        needs="paths",
        summary="Grant and revoke",
        description="The caller needs `admin` on the path of each grant.",
        parameters=(parameters.GROUP, *HOW_TO_WRITE),
        body=ApiBody("What to change.", {JSON: GroupChangeBody}),
        answers=(NO_CONTENT,),
        problems=_CHANGING,
    ),
    ("DELETE", "/v1/groups/{group}"): ApiOperation(
        tag="groups",
        name="removeGroup",
        needs="paths",
        summary="Remove a group",
        description="The caller needs `admin` on the root. Nobody is in a later group of its name.",
        parameters=(parameters.GROUP, *HOW_TO_WRITE),
        answers=(NO_CONTENT,),
        problems=_REMOVING,
    ),
}

_SESSIONS = {
    ("POST", "/v1/login"): ApiOperation(
        tag="sessions",
        name="login",
        needs="nothing",
        summary="Exchange a password or a token for a session",
        description="A session ends a day after its last use, in any case after two weeks, when it "
        "is revoked, with another password, and with its user or token. The setting `token` gets "
        "a cookie that ends with that setting, and no `bearer`: it is one itself.",
        body=ApiBody(
            "A user and a password, or a token.",
            {JSON: Login, "application/x-www-form-urlencoded": Login},
        ),
        answers=(
            ApiResponse(201, "The session, if the body asks for `bearer`.", schemas.LoggedIn),
            ApiResponse(204, "The cookie is set."),
            ApiResponse(303, "The same for a form: back to the UI.", headers=("Location",)),
        ),
        problems=_MAKING,
        open=True,
    ),
    ("POST", "/v1/logout"): ApiOperation(
        tag="sessions",
        name="logout",
        needs="credentials",
        summary="End the session, and delete the browser's cookie",
        answers=(ApiResponse(204, "Ended."),),
        problems=_REMOVING,
    ),
    ("GET", "/v1/sessions"): ApiOperation(
        tag="sessions",
        name="listSessions",
        needs="paths",
        summary="The sessions of the caller, or of all",
        description="All for who has `admin` on the root; others see their own.",
        parameters=(parameters.SESSIONS_AFTER, parameters.SESSIONS_LIMIT),
        answers=(ApiResponse(200, "In their order.", schemas.SessionPage),),
        problems=READING,
        head=True,
    ),
    ("DELETE", "/v1/sessions/{session}"): ApiOperation(
        tag="sessions",
        name="revokeSession",
        needs="paths",
        summary="End a session",
        description="One's own, or any for who has `admin` on the root. Every command and read of "
        "it that follows in the order of the log is refused.",
        parameters=(parameters.SESSION, *HOW_TO_WRITE),
        answers=(NO_CONTENT,),
        problems=_REMOVING,
    ),
}

ACCOUNTS: dict[tuple[Method, str], ApiOperation] = {**_TOKENS, **_USERS, **_SESSIONS}
