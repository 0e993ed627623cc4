"""Reads problem+json, and checks its shape on the way."""

from typing import Any

import httpx


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """The problem that an answer carries."""
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"].startswith("urn:synod:problem:")
    assert problem["status"] == response.status_code
    assert problem["title"]
    assert problem["detail"]
    return problem


def refused_as(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem of an answer that must have this status and type."""
    problem = problem_of(response)
    assert (problem["status"], problem["type"]) == (status, f"urn:synod:problem:{kind}")
    return problem
