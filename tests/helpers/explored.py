"""A ranking of small pictures, and ``solo-ood explore`` on it in a thread of this process."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from PIL import ExifTags, Image

from solo_ood.cli import main
from solo_ood.data.frames import read_frames
from solo_ood.explore.app import application
from solo_ood.explore.guard import HOST, Guard
from solo_ood.explore.serve import bound
from solo_ood.explore.session import Session
from solo_ood.mining.audit import draw, write_sheet
from solo_ood.mining.options import RankOptions
from solo_ood.mining.output import records, write_lists
from solo_ood.mining.ranking import build
from solo_ood.mining.recall import remembered
from solo_ood.mining.scenes import choose
from solo_ood.options.command_line import parse

RED = (20, 20, 36, 44)  # left, top, right, bottom of what matters
EVERY = 5  # one picture of so many shows it


def picture(number: int) -> Image.Image:
    """Noise as of a street at dusk, 64 x 48; a rare one has a red block."""
    pixels = np.random.default_rng(number).integers(60, 160, (48, 64, 3), dtype=np.uint8)
    if is_rare(number):
        left, top, right, bottom = RED
        pixels[top:bottom, left:right] = (250, 20, 20)
    return Image.fromarray(pixels)


def is_rare(number: int) -> bool:
    return number % EVERY == 0


def write_pictures(root: Path, count: int = 40) -> Path:
    """Pictures of two clips; one of them is stored turned, and shown as the others are."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for number in range(count):
        path = root / "ab"[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number == EVERY:
            picture(number).rotate(90, expand=True).save(path, exif=exif)
        else:
            picture(number).save(path)
    return root


def rank(data: Path, *more: str) -> Path:
    """Run ``solo-ood rank``; return its output folder."""
    here = data.parent
    main(
        ["rank", str(data), "--out", f"{here}/out", "--cache", f"{here}/cache"]
        + ["--embedder", "resnet18:random", "--image-size", "64", "--num-workers", "0"]
        + ["--accelerator", "cpu", "--block", "1", "--min-distance", "0", *more]
    )
    return here / "out"


def listed(data: Path, out: Path, *more: str, boxes: bool = False) -> Path:
    """Write what ``rank`` writes, of scores by name; no features are kept."""
    words = [str(data), "--embedder", "resnet18:random", "--out", f"{out}", "--cache", f"{out}/no"]
    options = parse(RankOptions, [*words, "--image-size", "32", *more], "solo-ood rank")
    frames = read_frames(data)
    scores = np.linspace(1, 0, len(frames))
    unit = np.eye(len(frames), dtype=np.float32)
    scenes = choose(scores, unit, frames.clips, 6, 0.0)
    evidence = [RED] * len(frames) if boxes else ()
    ranking = build(frames, frames.paths, scores, scenes, [], evidence)
    facts = {"command": "solo-ood rank", "detector": "knn", **remembered(options)}
    out.mkdir()
    write_lists(records(ranking, frames), facts, out)
    write_sheet(draw(ranking, 8, 0), ranking, frames, out)
    return out


@dataclass
class Reply:
    """What the server answered."""

    status: int
    headers: Message
    text: bytes


@dataclass
class Served:
    """A server that runs, and how to ask it."""

    session: Session
    guard: Guard
    port: int
    cookie: str = ""

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/?token={self.guard.token}"

    def ask(self, path: str, body: Any = None, **headers: str) -> Reply:
        """Return the answer to a request of the page itself, but for ``headers``."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        content = None if body is None else json.dumps(body)
        method = "GET" if body is None else "POST"
        given = {"Cookie": self.cookie}
        if method == "POST":
            given["Origin"] = f"http://{HOST}:{self.port}"
        given |= headers
        connection.putrequest(method, path, skip_host="Host" in given, skip_accept_encoding=True)
        for name, value in given.items():
            if value:
                connection.putheader(name, value)
        if content is not None:
            connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content.encode() if content else None)
        answer = connection.getresponse()
        reply = Reply(answer.status, answer.headers, answer.read())
        connection.close()
        return reply

    def json(self, path: str, body: Any = None) -> Any:
        answer = self.ask(path, body)
        assert answer.status == 200, answer.text
        return json.loads(answer.text)

    def log_in(self) -> None:
        """Follow the address that is printed, as a browser does."""
        answer = self.ask(f"/?token={self.guard.token}")
        assert answer.status == 200
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]


@contextmanager
def served(out: Path, **how: Any) -> Iterator[Served]:
    """Serve ``out`` until the end of the block."""
    session = Session(out, lambda text: None, **how)
    door = bound(0, print)
    guard = Guard(door.getsockname()[1])
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(application(session, guard), access_log=None, shutdown_timeout=1)

    async def start() -> None:
        await runner.setup()
        await web.SockSite(runner, door).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Served(session, guard, door.getsockname()[1])
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
