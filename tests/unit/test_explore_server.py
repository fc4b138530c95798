"""The server of ``solo-ood explore``: whom it answers, what it never gives out, how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from explored import Served, listed, served, write_pictures
from PIL import Image

from solo_ood.cli import main
from solo_ood.explore.guard import HOST
from solo_ood.explore.serve import bound

SECRET = "not for you"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranking of 12 pictures, one a link out of the data, one no picture, one gone since."""
    root = tmp_path_factory.mktemp("served")
    data = write_pictures(root / "data", 12)
    (root / "secret.txt").write_text(SECRET)
    Image.new("RGB", (8, 8)).save(root / "private.png")
    (data / "a" / "link.png").symlink_to(root / "private.png")
    (data / "a" / "none.png").write_text(SECRET)
    out = listed(data, root / "out")
    (data / "b" / "011.png").unlink()
    return out


@pytest.fixture(scope="module")
def server(out: Path) -> Iterator[Served]:
    with served(out) as server:
        server.log_in()
        yield server


def number(server: Served, name: str) -> int:
    return server.session.names.index(name)


def test_the_token_of_the_address_becomes_a_cookie_that_scripts_cannot_read(server):
    answer = server.ask(f"/?token={server.guard.token}", Cookie="")
    assert answer.status == 200 and b"<title>" in answer.text
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and str(server.port) in cookie
    assert len(server.guard.token) > 40
    for name in ("Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options"):
        assert answer.headers[name]
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/state", "/pictures/0/small", "/explore.js", "/none"])
def test_without_the_cookie_nothing_is_given_out(server, path):
    for cookie in ("", f"solo_ood_{server.port}=guess", f"solo_ood_{server.port}=%C3%A9"):
        assert server.ask(path, Cookie=cookie).status == 403
    assert server.ask("/?token=guess", Cookie="").status == 403
    assert server.ask(f"/state?token={server.guard.token}", Cookie="").status == 403
    assert server.ask(path).status == (404 if path == "/none" else 200)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::1"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ],
)
def test_foreign_hosts_and_origins_get_403(server, headers):
    assert server.ask("/state", **headers).status == 403
    body = {"number": 0, "rare": True}
    assert server.ask("/answer", body, **headers).status == 403
    assert server.session.answers.counts()["yes"] == 0


def test_what_changes_something_needs_the_origin_of_the_page(server):
    body = {"number": 0, "rare": True}
    assert server.ask("/answer", body, Origin="").status == 403
    assert server.ask("/answer", body, Cookie="").status == 403
    assert server.ask("/answer").status == 405
    tunnel = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
    assert server.ask("/answer", body, **tunnel).status == 200
    assert server.json("/undo", {})["item"]["answer"] is None


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "//etc/passwd", "/etc/passwd",
        "/pictures/../../secret.txt", "/pictures/..%2f..%2fsecret.txt/small", "/ranking.csv",
        "/pictures/%2fetc%2fpasswd/small", "/pictures/-1/small", "/pictures/999/large",
        "/pictures/0/../../../secret.txt", "/explore.js/../../serve.py", "/templates/explore.js",
    ],
)  # fmt: skip
def test_no_path_leads_to_another_file(server, path):
    answer = server.ask(path)
    assert answer.status == 404 and SECRET.encode() not in answer.text


def test_links_out_of_the_data_are_shown_on_request_alone(server, out):
    link = number(server, "a/link.png")
    for size in ("small", "large"):
        assert server.ask(f"/pictures/{link}/{size}").status == 403
    assert "--follow-links" in " ".join(server.json("/state")["notes"])
    with served(out, follow_links=True) as other:
        other.log_in()
        assert other.ask(f"/pictures/{link}/small").status == 200


def test_pictures_are_made_anew_and_other_files_never_sent(server):
    answer = server.ask(f"/pictures/{number(server, 'b/005.png')}/large")
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.text)).size == (64, 48)  # stored turned
    for name in ("a/none.png", "b/011.png"):
        answer = server.ask(f"/pictures/{number(server, name)}/small")
        assert answer.status == 404 and SECRET.encode() not in answer.text


def test_pictures_that_are_gone_are_counted_and_the_rest_goes_on(server):
    notes = " ".join(server.json("/state")["notes"])
    assert "1 of 14 pictures are not where they were, such as b/011.png" in notes
    items = server.json("/pictures?view=all&count=100")["items"]
    assert len(items) == 14
    assert {i["name"]: i["size"] for i in items}["b/011.png"] is None
    body = {"number": number(server, "b/011.png"), "rare": True, "boxes": [[1, 1, 2, 2]]}
    answer = server.ask("/answer", body)
    assert answer.status == 400 and b"Answer with yes or no alone" in answer.text


def test_what_is_not_in_the_cache_is_said_with_a_remedy(server):
    end = time.monotonic() + 120
    while (state := server.json("/state")["rerank"])["state"] == "preparing":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert state["state"] == "off" and "Call solo-ood rank again" in state["reason"]
    answer = server.ask("/rerank", {})
    assert answer.status == 409 and b"solo-ood rank kept" in answer.text


@pytest.mark.parametrize(
    "body",
    [
        [], {}, {"number": "0", "rare": True}, {"number": 0, "rare": "yes"},
        {"number": 10**6, "rare": True}, {"number": True, "rare": True},
        {"number": 0, "rare": True, "boxes": 3}, {"number": 0, "rare": True, "boxes": [[1, 2]]},
        {"number": 0, "rare": True, "boxes": [[0, 0, 900, 9]]},
        {"number": 0, "rare": True, "boxes": [[None] * 4]},
        {"number": 0, "rare": False, "boxes": [[0, 0, 9, 9]]},
        {"number": 0, "rare": True, "boxes": [[float("nan"), 0, 9, 9]]},
    ],
)  # fmt: skip
def test_requests_that_make_no_sense_change_nothing(server, body):
    answer = server.ask("/answer", body)
    assert answer.status == 400 and "error" in json.loads(answer.text)
    assert server.session.answers.names == []


def test_numbers_of_a_filter_that_are_none_are_refused(server):
    assert server.ask("/pictures?low=x").status == 400
    assert server.ask("/pictures?offset=nan").status == 400
    assert server.ask("/pictures?offset=1e400").status == 400
    assert server.ask("/pictures?view=x").status == 400


def test_a_port_that_is_taken_gives_way_to_a_free_one():
    said: list[str] = []
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with bound(port, said.append) as door:
            assert door.getsockname()[0] == HOST and door.getsockname()[1] != port
    assert f"port {port}: " in said[0] and "--port" in said[0]


def test_ctrl_c_ends_it_with_a_line_on_where_the_answers_are(out, capsys, monkeypatch):
    """Of the whole command, in this process; its relative paths count as they did for ``rank``."""
    monkeypatch.chdir(out.parent)
    answered = []

    def interrupt() -> None:
        end = time.monotonic() + 60
        shown = ""
        while "token=" not in shown and time.monotonic() < end:
            time.sleep(0.1)
            shown += capsys.readouterr().out
        (address,) = [line for line in shown.splitlines() if "token=" in line]
        with urllib.request.urlopen(address) as page:
            cookie = page.headers["Set-Cookie"].partition(";")[0]
        root = address.partition("?")[0]
        request = urllib.request.Request(
            f"{root}answer",
            json.dumps({"number": 0, "rare": True}).encode(),
            {"Cookie": cookie, "Origin": root.rstrip("/")},
        )
        answered.append(urllib.request.urlopen(request).status)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    main(["explore", "out"])
    thread.join()
    said = capsys.readouterr().out
    assert answered == [200]
    assert f"{out / 'explored-answers.csv'}: 1 yes, 0 no; solo-ood rank … --feedback" in said
    (out / "explored-answers.csv").unlink()
