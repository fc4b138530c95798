"""The web application: addresses, what they take and what they answer."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from solo_ood.errors import UserError, short_repr
from solo_ood.explore.guard import Guard, Handler
from solo_ood.explore.listing import Filter
from solo_ood.explore.pictures import NotShown
from solo_ood.explore.session import Session
from solo_ood.pages.page import TEMPLATES

OWN = Path(__file__).parent / "templates"
# All files that the page consists of, by address.
FILES = {
    "/": (OWN / "explore.html", "text/html"),
    "/explore.js": (OWN / "explore.js", "text/javascript"),
    "/explore.css": (OWN / "explore.css", "text/css"),
    "/style.css": (TEMPLATES / "style.css", "text/css"),
}


def application(session: Session, guard: Guard) -> web.Application:
    """Return the application; features are read as soon as it runs."""
    app = web.Application(client_max_size=2**20)
    guard.add_to(app)
    app.middlewares.append(_errors)
    server = _Server(session)
    app.router.add_routes(
        [
            *(web.get(path, _file(*file)) for path, file in FILES.items()),
            web.get("/state", server.state),
            web.get("/pictures", server.listed),
            web.get(r"/pictures/{number:\d{1,9}}/small", server.picture(session.pictures.small)),
            web.get(r"/pictures/{number:\d{1,9}}/large", server.picture(session.pictures.large)),
            web.post("/answer", server.answer),
            web.post("/undo", server.undo),
            web.post("/rerank", server.rerank),
        ]
    )
    app.on_startup.append(server.start)
    app.on_cleanup.append(server.stop)
    return app


class _Server:
    """Handlers of a session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.busy = self.writing = False
        self.failed = ""  # why the newest list could not be written
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, app: web.Application) -> None:
        self._begin(self._prepared())

    async def stop(self, app: web.Application) -> None:
        await asyncio.to_thread(self.session.reranking.close)

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)  # one without a name may be collected while it runs
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _prepared(self) -> None:
        await asyncio.wrap_future(self.session.reranking.prepare())
        self.session.pictures.set_levels(self.session.reranking.levels)

    async def state(self, request: web.Request) -> web.Response:
        work = {"busy": self.busy, "writing": self.writing, "failed": self.failed}
        return web.json_response({**self.session.state(), **work})

    async def listed(self, request: web.Request) -> web.Response:
        query = request.query
        wanted = Filter(
            query.get("clip") or None,
            _number(query.get("low"), -math.inf),
            _number(query.get("high"), math.inf),
            query.get("words", ""),
        )
        offset, count = (int(_number(query.get(name), 0)) for name in ("offset", "count"))
        view = query.get("view", "chosen")
        found = await asyncio.to_thread(self.session.listed, view, wanted, offset, count)
        return web.json_response(found)

    def picture(self, read: Callable[[int], bytes]) -> Handler:
        """Return the handler of ``small`` or ``large``."""

        async def handle(request: web.Request) -> web.Response:
            try:
                content = await asyncio.to_thread(read, int(request.match_info["number"]))
            except NotShown as error:
                kind = web.HTTPForbidden if error.outside else web.HTTPNotFound
                raise kind(text=str(error)) from error
            return web.Response(body=content, content_type="image/jpeg")

        return handle

    async def answer(self, request: web.Request) -> web.Response:
        said = await _body(request)
        number, rare, audit = said.get("number"), said.get("rare"), said.get("audit", False)
        if type(number) is not int or rare not in (True, False, None) or type(audit) is not bool:
            raise _misuse("number, rare and audit", said)
        self.session.answer(number, audit, rare, _boxes(said.get("boxes", [])))
        return self._changed(number, audit)

    async def undo(self, request: web.Request) -> web.Response:
        step = self.session.undo()
        if step is None:
            return web.json_response({"item": None, "state": self.session.state()})
        return self._changed(step.number, step.audit)

    def _changed(self, number: int, audit: bool) -> web.Response:
        item, state = self.session.item(number, audit), self.session.state()
        return web.json_response({"item": item, "audit": audit, "state": state})

    async def rerank(self, request: web.Request) -> web.Response:
        session = self.session
        if self.busy or session.reranking.state != "ready":
            reason = session.reranking.reason or "not ready yet"
            return web.json_response({"error": reason}, status=409)
        self.busy = True
        try:
            sheets = [session.answers.sheet.path]
            made = await asyncio.wrap_future(session.reranking.make(sheets))
        finally:
            self.busy = False
        new = session.take(made)
        self.writing = True
        self._begin(self._written(made))
        return web.json_response({"new": new, "notes": made.notes, "state": session.state()})

    async def _written(self, made: Any) -> None:
        try:
            await asyncio.wrap_future(self.session.reranking.write(made))
            self.failed = ""
        except Exception as error:  # the list is on the page, and the answers are kept
            self.failed = f"{type(error).__name__}: {error}"
        finally:
            self.writing = False


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the page what went wrong, in JSON."""
    try:
        return await handler(request)
    except UserError as error:
        return web.json_response({"error": str(error)}, status=400)
    except OSError as error:
        return web.json_response({"error": f"not saved: {error}"}, status=500)


def _file(path: Path, kind: str) -> Handler:
    text = path.read_text(encoding="utf-8")

    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind)

    return handle


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        said = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _misuse("JSON", str(error)) from error
    if not isinstance(said, dict):
        raise _misuse("an object", said)
    return said


def _boxes(value: Any) -> list[list[float]]:
    try:
        return [[float(side) for side in box] for box in value]
    except (TypeError, ValueError) as error:
        raise _misuse("boxes of left, top, right, bottom", value) from error


def _number(text: str | None, default: float) -> float:
    try:
        value = float(text) if text else default
    except ValueError as error:
        raise _misuse("a number", text) from error
    if text and not math.isfinite(value):
        raise _misuse("a number", text)
    return value


def _misuse(expected: str, got: Any) -> UserError:
    remedy = "Load the page again."
    return UserError("request", expected=expected, got=short_repr(got), remedy=remedy)
