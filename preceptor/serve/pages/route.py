"""A route that is a page: forms of other sites are refused, and errors are pages too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from preceptor.serve.pages.rendering import HEADERS, show
from preceptor.serve.pages.session import SignInNeededError, require_same_origin
from preceptor.serve.problems import Problem, answer, problem_of

_log = logging.getLogger("preceptor.serve")


class PageRoute(APIRoute):
    """Of every router of pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI asks for it."""
        inner = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                if request.method not in ("GET", "HEAD"):
                    require_same_origin(request)
                return await inner(request)
            except SignInNeededError:
                return to_sign_in(request)
            except RequestValidationError as error:
                said = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors()[:5])
                return page_of(Problem(422, "invalid_request", said), request)
            except Exception as error:
                problem = problem_of(error)
                if problem is None:
                    _log.error("%s %s failed", request.method, self.path, exc_info=error)
                    problem = Problem(500, "internal_error", "a fault of the server; its log has more")
                return page_of(problem, request)

        return handled


def to_sign_in(request: Request) -> Response:
    """Sign in, and come back to where one was."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    back = f"?next={quote(here, safe='')}" if request.method == "GET" and here != "/" else ""
    return RedirectResponse(f"/sign-in{back}", 303, HEADERS)


def page_of(problem: Problem, request: Request) -> Response:
    """A problem as a page."""
    made = show(
        request,
        "problem.html",
        problem.status,
        problem=problem,
        title=HTTPStatus(problem.status).phrase,
        faults=[one for one in problem.more.get("errors", ()) if isinstance(one, dict)],
    )
    made.headers.update({name: value for name, value in problem.headers.items() if name == "Retry-After"})
    return made


def install(app: FastAPI) -> None:
    """Have what is not there be told to browsers as a page, and to everybody else as before."""

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        problem = Problem(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))
        wanted = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1/")
        return page_of(problem, request) if wanted else answer(problem, request)

    app.add_exception_handler(HTTPException, of_http)
