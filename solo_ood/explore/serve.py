"""``solo-ood explore``: the server on this machine, from its address to its end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from solo_ood.explore.answers import ANSWERS, BOXES
from solo_ood.explore.app import application
from solo_ood.explore.guard import HOST, Guard
from solo_ood.explore.options import ExploreOptions
from solo_ood.explore.session import Session
from solo_ood.files.output import check_writable
from solo_ood.files.text import printable
from solo_ood.mining.audit import SHEET
from solo_ood.mining.recall import read_facts

PATIENCE = 2.0  # seconds that open requests have at the end


def explore(options: ExploreOptions, show: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: if there is no ranking, or nothing can be saved beside it.
    """
    out = options.out.absolute()
    facts = read_facts(out)
    check_writable(out, "OUT", ANSWERS, BOXES)
    with suppress(OSError):  # gone: what the paths count from it is then missing, and said so
        os.chdir(str(facts.get("folder", ".")))
    session = Session(out, show, options.follow_links)
    with bound(options.port, show) as door:
        port = door.getsockname()[1]
        guard = Guard(port)
        about = f"{len(session.names):,} pictures of {session.title}, by {session.detector}"
        show("\n".join(map(printable, [about, *session.notes])))
        show(f"http://{HOST}:{port}/?token={guard.token}\nfor this machine alone; Ctrl-C ends it")
        web.run_app(
            application(session, guard),
            sock=door,
            print=None,
            access_log=None,
            shutdown_timeout=PATIENCE,
        )
    show("\n" + told(session))


def bound(port: int, show: Callable[[str], None]) -> socket.socket:
    """Return a socket that listens to this machine alone, at ``port`` or, if taken, a free one."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        show(f"port {port}: {os.strerror(error.errno or 0)}; a free one is taken (--port)")
        return socket.create_server((HOST, 0))


def told(session: Session) -> str:
    """Return where the answers are, and which commands take them."""
    counts, out = session.answers.counts(), session.out
    lines = []
    if counts["yes"] + counts["no"]:
        said = f"{counts['yes']} yes, {counts['no']} no"
        lines.append(f"{_shown(out / ANSWERS)}: {said}; solo-ood rank … --feedback takes it")
    if counts["boxes"]:
        lines.append(f"{_shown(out / BOXES)}: boxes: {counts['boxes']}; … --boxes takes it")
    audit = session.audit.counts()
    if audit["answered"]:
        filled = f"{audit['answered']} of {audit['drawn']} lines"
        lines.append(f"{_shown(out / SHEET)}: {filled}; … --audited takes it when all are filled")
    return "\n".join(lines) or "nothing was answered"


def _shown(path: Path) -> str:
    return printable(str(path))
