"""Who may ask the server: the browser of whoever started it, and no page of anybody else.

Another user of the machine lacks the token; a foreign page is stopped by its ``Origin``, and one
whose name was bound to 127.0.0.1 (DNS rebinding) by its ``Host``.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

HOST = "127.0.0.1"
_NAMES = {HOST, "localhost"}  # any port: a tunnel may end at another one
_REMEDY = "Open the address that solo-ood explore has printed."
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """Refuses by 403 what does not come from the page itself.

    Attributes:
        token: the secret of the first address, and of the cookie that takes its place.

    Args:
        port: of the server; a browser sends the cookies of all ports to each of them.
    """

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self._cookie = f"solo_ood_{port}"

    def add_to(self, app: web.Application) -> None:
        """Let nothing past but what is allowed, and give every answer its headers."""
        app.middlewares.append(self._middleware())
        app.on_response_prepare.append(_add_headers)

    def _middleware(self) -> Any:
        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            named = self._is_token(request.query.get("token", "")) and request.path == "/"
            if _is_foreign(request):
                raise web.HTTPForbidden(text="This server answers its own page alone.")
            if not named and not self._is_token(request.cookies.get(self._cookie, "")):
                raise web.HTTPForbidden(text=_REMEDY)
            response = await handler(request)
            if named:
                response.set_cookie(
                    self._cookie, self.token, httponly=True, samesite="Strict", path="/"
                )
            return response

        return check

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(errors="replace"), self.token.encode())


def _is_foreign(request: web.Request) -> bool:
    try:
        name = urlsplit(f"//{request.host}").hostname
    except ValueError:
        return True
    origin = request.headers.get("Origin")
    if name not in _NAMES or origin not in (None, f"http://{request.host}"):
        return True
    return origin is None and request.method not in ("GET", "HEAD")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
