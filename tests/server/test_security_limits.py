"""Nobody takes a server from the others: slow, many, frequent and huge requests."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from select import select
from time import monotonic, sleep
from typing import Any

import pytest

from ndif_batch.client import Client
from ndif_batch.config import ServerSettings
from ndif_batch.errors import BusyError, NotFoundError
from ndif_batch.queue.http import WAIT_SECONDS, HttpWorkerQueue, Line, connect
from ndif_batch.server import gate, room
from ndif_batch.server.buckets import MOST_KEYS, Buckets
from ndif_batch.server.gate import MOST_BYTES
from tests import toy
from tests.server.serving import WAIT, Served, serving
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working

PATIENCE = 0.5


@contextmanager
def limited(behind: Client, **limits: Any) -> Iterator[Served]:
    """A server at a port with these limits."""
    settings = behind.settings.model_copy(update={"server": ServerSettings(**limits)})
    with serving(behind.queue, settings, unix=False) as served:
        yield served


@contextmanager
def connection(served: Served) -> Iterator[socket.socket]:
    host, _, port = served.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=WAIT) as made:
        yield made


def is_closed(sock: socket.socket) -> bool:
    """Whether the other end closes it, without a word."""
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def dribble(sock: socket.socket, part: bytes) -> None:
    """Send ``part`` again and again, until the other end has closed or answered."""
    deadline = monotonic() + WAIT
    while monotonic() < deadline:
        if select([sock], [], [], 0.02)[0]:
            return
        sock.sendall(part)
    raise AssertionError("nobody minds")


def flood(sock: socket.socket) -> None:
    """Send more and more, whatever is answered."""
    deadline = monotonic() + WAIT
    while monotonic() < deadline:
        sock.sendall(b"x" * 1000)
        select([], [], [], 0.02)


class TestSlowClients:
    def test_who_says_nothing_is_cut_off(self, behind: Client) -> None:
        with limited(behind, patience_seconds=PATIENCE) as served, connection(served) as sock:
            assert is_closed(sock)

    def test_who_dribbles_headers_is_cut_off(self, behind: Client) -> None:
        with limited(behind, patience_seconds=PATIENCE) as served, connection(served) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: ")
            dribble(sock, b"x")
            assert is_closed(sock)

    def test_who_dribbles_a_body_is_cut_off_and_nothing_is_done(self, behind: Client) -> None:
        with limited(behind, patience_seconds=PATIENCE) as served, connection(served) as sock:
            head = f"POST /v1/pause HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {served.tokens['root']}\r\n"
            sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{}}".encode())
            dribble(sock, b" ")
            assert is_closed(sock)
        assert behind.queue.settings() == {}

    def test_who_is_refused_and_goes_on_sending_is_cut_off(self, behind: Client) -> None:
        with limited(behind, patience_seconds=PATIENCE, bytes_per_second=1) as served, connection(served) as sock:
            sock.sendall(b"POST /v1/pause HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 401"
            with pytest.raises(ConnectionError):
                flood(sock)

    def test_who_is_slow_but_not_that_slow_is_served(self, behind: Client) -> None:
        with limited(behind, patience_seconds=PATIENCE, bytes_per_second=10) as served, connection(served) as sock:
            body = b'{"call": "has_work", "model": "toy"}'.ljust(400)
            head = f"POST /v1/worker HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {served.tokens['walt']}\r\n"
            sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
            for start in range(0, len(body), 100):
                select([], [], [], PATIENCE / 2)
                sock.sendall(body[start : start + 100])
            assert sock.recv(15) == b"HTTP/1.1 200 OK"

    def test_a_new_connection_takes_the_place_of_the_oldest_idle_one(self, behind: Client) -> None:
        with limited(behind, connections=3) as served, connection(served) as first, connection(served) as second:
            for _ in range(3):
                with served.http("ada") as http:
                    assert http.get("/v1/me").status_code == 200
            with connection(served), connection(served):
                assert is_closed(first)
            second.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert second.recv(15) in (b"HTTP/1.1 200 OK", b"")

    def test_what_is_no_http_is_told_so_as_a_problem(self, behind: Client) -> None:
        with limited(behind) as served, connection(served) as sock:
            sock.sendall(b"\x16\x03\x01 hello\r\n\r\n")
            head, _, body = b"".join(iter(lambda: sock.recv(4096), b"")).partition(b"\r\n\r\n")
            assert b"400 Bad Request" in head
            assert b"application/problem+json" in head
            assert json.loads(body)["code"] == "usage"


class TestFrequency:
    def test_a_bucket_is_emptied_and_fills_again(self) -> None:
        now = [0.0]
        buckets = Buckets(2.0, 3, lambda: now[0])
        assert [buckets.take("ada") for _ in range(4)] == [0, 0, 0, 0.5]
        assert buckets.take("bob") == 0
        now[0] += 0.75
        assert (buckets.take("ada"), buckets.take("ada")) == (0, 0.25)
        now[0] += 100
        assert [buckets.take("ada") for _ in range(4)] == [0, 0, 0, 0.5]

    def test_only_so_many_askers_are_remembered(self) -> None:
        buckets = Buckets(1.0, 1, lambda: 0.0)
        assert all(buckets.take(asker) == 0 for asker in range(MOST_KEYS))
        assert (buckets.take(0), buckets.take("new"), buckets.take(1)) == (1, 0, 0)

    def test_a_token_that_asks_too_often_is_told_when_to_come_again_and_others_are_served(self, behind: Client) -> None:
        with limited(behind, requests_per_second=0.1, burst=3) as served:
            with served.http("ada") as http:
                assert [http.get("/v1/me").status_code for _ in range(4)] == [200, 200, 200, 429]
                refused = http.get("/v1/me")
            assert (refused.headers["content-type"], refused.json()["code"]) == ("application/problem+json", "busy")
            assert 1 <= int(refused.headers["retry-after"]) <= 10
            with served.http("bob") as http:
                assert http.get("/v1/me").status_code == 200

    def test_who_has_no_token_is_refused_more_shortly_after_a_while_and_who_has_one_is_not(
        self, behind: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gate, "STRANGERS_BURST", 4)
        monkeypatch.setattr(gate, "STRANGERS_PER_SECOND", 0.1)
        with limited(behind) as served:
            with served.http() as http:
                wrong = {"Authorization": f"Bearer ndif_1_{'a' * 43}"}
                assert [http.get("/v1/me", headers=wrong).status_code for _ in range(5)] == [401] * 4 + [429]
                assert [http.get("/healthz").status_code for _ in range(5)] == [200] * 4 + [429]
            with served.http("ada") as http:
                assert http.get("/v1/me").status_code == 200

    def test_the_client_waits_as_long_as_it_is_told(self, behind: Client) -> None:
        waits: list[float] = []

        def pause(seconds: float) -> None:
            waits.append(seconds)
            sleep(seconds)

        with limited(behind, requests_per_second=1.0, burst=1) as served:
            line = Line(served.url, served.tokens["ada"], pause=pause)
            assert [line.send("GET", "/v1/me").json()["user"] for _ in range(2)] == ["ada", "ada"]
            line.close()
        assert waits == [1.0]

    def test_the_client_gives_up_when_it_would_wait_for_too_long(self, behind: Client) -> None:
        with limited(behind, requests_per_second=1 / (2 * WAIT_SECONDS), burst=1) as served:
            api = connect(served.url, served.tokens["ada"])
            api.me()
            with pytest.raises(BusyError, match="asked too often") as caught:
                api.me()
            assert caught.value.retry_after > WAIT_SECONDS
            api.close()

    def test_a_worker_and_who_reads_its_results_are_never_told_to_wait(self, behind: Client, served: Served) -> None:
        def pause(seconds: float) -> None:
            raise AssertionError(f"told to wait for {seconds} s")

        job = submit(behind, repeats=5, tile=(1, 1, 1))
        with (
            HttpWorkerQueue(Line(served.url, served.tokens["walt"], pause=pause)) as queue,
            working(behind, ToyEngine(), max_tokens=9, queue=queue) as worker,
        ):
            assert worker.run().shards_done == 60
        with served.http("ada") as http:
            names = http.get(f"/v1/archive/{job.id}/residual/").json()
            found = [http.get(f"/v1/archive/{job.id}/residual/{name}").status_code for name in names]
        assert set(found) == {200}


class TestSize:
    @pytest.mark.parametrize("length", ["-1", "1e3", "9" * 30, "0x10", "1, 2", "1\r\nContent-Length: 2"])
    def test_a_length_that_is_none_is_refused(self, behind: Client, length: str) -> None:
        with limited(behind) as served, connection(served) as sock:
            head = f"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {served.tokens['ada']}\r\n"
            sock.sendall(f"{head}Content-Length: {length}\r\n\r\n{{}}".encode())
            assert sock.recv(12) in (b"HTTP/1.1 400", b"HTTP/1.1 413")

    def test_the_bodies_of_all_requests_together_have_a_bound(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "MOST_HELD_BYTES", 1000)
        with served.http("walt") as http:
            call = json.dumps({"call": "has_work", "model": toy.NAME}).encode()
            busy = http.post("/v1/worker", content=call.ljust(1001))
            assert (busy.status_code, busy.json()["code"], busy.headers["retry-after"]) == (503, "busy", "1")
            assert [http.post("/v1/worker", content=call.ljust(900)).status_code for _ in range(3)] == [200] * 3

    def test_only_so_many_requests_of_a_token_are_served_at_once(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "MOST_OF_ONE", 0)
        with served.http("ada") as http:
            assert http.get("/v1/me").status_code == 503
        with served.worker_queue() as queue:
            assert not queue.has_work(toy.NAME)

    @pytest.mark.parametrize("deep", [b"[" * 50_000, b'{"a":' * 50_000, b"[{" * 1000 + b"}]" * 1000])
    def test_depth_is_limited_before_anything_is_parsed(self, served: Served, deep: bytes) -> None:
        with served.http("ada") as http:
            for path in ("/v1/jobs", "/v1/reusable"):
                assert "arrays and objects deep" in http.post(path, content=deep).json()["detail"]

    def test_depth_adds_up_over_a_long_body(self, served: Served) -> None:
        filler = b"0," * 2**19
        deep = b"".join(b"[" + filler for _ in range(3)) + b"[" * 99
        with served.http("ada") as http:
            assert "the body is 102 arrays" in http.post("/v1/jobs", content=deep).json()["detail"]

    def test_a_body_without_a_length_is_limited_as_it_comes(self, served: Served) -> None:
        sent = 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            for _ in range(1000):
                sent += 2**20
                yield b" " * 2**20

        with served.http("ada") as http:
            assert http.post("/v1/jobs", content=endless()).status_code == 413
        assert sent < 3 * MOST_BYTES

    def test_one_who_recomputes_does_not_keep_others_waiting(self, served: Served, behind: Client) -> None:
        api = served.api("ada")
        with pytest.raises(NotFoundError):
            api.recompute(99, 1)
        api.close()
