"""Answers that are errors: RFC 9457's problem+json, with the `error` member that OpenAI's SDK reads."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import BudgetReached, LedgerError, ProviderStopped, RetiredModel
from preceptor.prompts.secrets import redacted

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
"""What a client is told to wait where nobody knows better."""
MOST_FAULTS = 20
"""Faults of one body that are told."""
TEXT, COUNT = {"type": "string"}, {"type": "integer"}
BODY = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "error"],
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": COUNT,
        "detail": TEXT,
        "instance": TEXT,
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {"message": TEXT, "type": TEXT, "param": {}, "code": TEXT},
        },
    },
}
"""The schema of a problem."""
EVERYWHERE = (400, 401, 403, 408, 413, 421, 422, 429, 503)
"""Statuses that any request may be answered with: by the gate, for its key, for its body, or for what is not ready."""
_log = logging.getLogger(__name__)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI is told of answers that are problems."""
    content = {MEDIA_TYPE: {"schema": BODY}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


class Problem(Exception):
    """A request that is not answered, and why."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        type: str = "invalid_request_error",  # noqa: A002 - the name of the field in OpenAI's errors
        *,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        """code: one word for programs, as `budget_exceeded`. more: further members of the body."""
        super().__init__(message)
        self.status, self.code, self.message, self.type = status, code, redacted(message), type
        self.headers = headers or {}
        self.more = more


def unavailable(code: str, message: str, retry_after_s: float | None = None) -> Problem:
    """503: the same request may succeed later."""
    wait_s = max(1, round(retry_after_s or RETRY_AFTER_S))
    return Problem(503, code, message, "server_error", headers={"Retry-After": str(wait_s)})


def problem_of(error: BaseException) -> Problem | None:
    """The problem that an error of a stage is to who asked for it; None: it is a fault of ours."""
    match error:
        case Problem():
            return error
        case BudgetReached():
            return Problem(402, "budget_exceeded", str(error), "insufficient_quota")
        case ProviderStopped():
            return unavailable("provider_stopped", f"the judge's provider answers nobody: {error}", 30)
        case LedgerError() | RetiredModel():
            return unavailable("not_ready", str(error), 30)
        case UserError():
            return Problem(422, "invalid_request", str(error))
    return None


def error_of(problem: Problem) -> dict[str, Any]:
    """The problem in OpenAI's words."""
    return {"message": problem.message, "type": problem.type, "param": None, "code": problem.code}


def body_of(problem: Problem, path: str) -> dict[str, Any]:
    """The problem as RFC 9457 has it, of a request for a path."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.message,
        "instance": path,
        **problem.more,
        "error": error_of(problem),
    }


def answer(problem: Problem, request: Request) -> JSONResponse:
    """The problem as it is sent."""
    return JSONResponse(body_of(problem, request.url.path), problem.status, problem.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Have every error of the application answered in this form."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error)
        assert problem is not None
        return answer(problem, request)

    async def of_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return answer(
            Problem(error.status_code, code, str(error.detail), headers=dict(error.headers or {})), request
        )

    async def of_body(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        faults = [
            {
                "pointer": "".join(f"/{part}" for part in fault["loc"][1:]),
                "in": str(fault["loc"][0]),
                "detail": str(fault["msg"]),
            }
            for fault in error.errors()[:MOST_FAULTS]
        ]
        said = "; ".join(f"{fault['pointer'] or fault['in']}: {fault['detail']}" for fault in faults)
        return answer(Problem(422, "invalid_request", said, errors=faults), request)

    async def ours(request: Request, error: Exception) -> JSONResponse:
        # the traceback goes to the server's log; who asked learns that it is not his request's fault
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return answer(
            Problem(500, "internal_error", "a fault of the server; its log has more", "server_error"), request
        )

    for kind in (Problem, BudgetReached, ProviderStopped, UserError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_body)
    app.add_exception_handler(Exception, ours)
