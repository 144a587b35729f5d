"""The long line of the benchmark: what comes out is what went in, in the line's own time, and it holds little."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from benchmarks.delay_line import MOST_HELD, PIECE, Way
from benchmarks.runner import environment

DELAY, RATE = 0.25, PIECE * 8.0  # a piece takes an eighth of a second
SECONDS = PIECE / RATE


@contextmanager
def line(port: int, *, round_trip: float = 0.0, rate: float = 0.0) -> Iterator[int]:
    """Run the line in its process; yields the port of its near end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        words = ["-m", "benchmarks.delay_line", str(number), str(port), str(round_trip), str(rate)]
        with subprocess.Popen([sys.executable, *words], pass_fds=(number,), env=environment()) as process:
            try:
                yield listener.getsockname()[1]
            finally:
                process.terminate()


@contextmanager
def way() -> Iterator[tuple[Way, socket.socket, socket.socket]]:
    """Give one way that opens at 0, what is sent into, and what is received from."""
    with ExitStack() as stack:
        into, source = (stack.enter_context(one) for one in socket.socketpair())
        target, out = (stack.enter_context(one) for one in socket.socketpair())
        for one in (into, source, target, out):
            one.setblocking(False)
            for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                one.setsockopt(socket.SOL_SOCKET, buffer, 4 * PIECE)
        yield Way(source, target, DELAY, RATE, opens_at=0.0), into, out


def received(out: socket.socket) -> int:
    try:
        return len(out.recv(16 * PIECE))
    except BlockingIOError:
        return 0


def test_bytes_both_ways_are_unchanged_and_the_ends_are_passed_on() -> None:
    up, down = random.Random(1).randbytes(3_000_001), random.Random(2).randbytes(2_000_003)
    got: list[bytes] = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as stream:
            got.append(stream.read())  # to the end that the client makes
            connection.sendall(down)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        with (
            line(server.getsockname()[1], round_trip=0.01, rate=200e6) as port,
            socket.create_connection(("127.0.0.1", port), timeout=60) as client,
            client.makefile("rb") as stream,
        ):
            client.sendall(up)
            client.shutdown(socket.SHUT_WR)
            assert stream.read() == down
        thread.join(60)
    assert got == [up]


def test_a_receiver_that_takes_nothing_stops_the_sender_and_nothing_is_lost() -> None:
    data = random.Random(3).randbytes(1 << 20)
    most, sent, held_back = 256 << 20, 0, False
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        line(server.getsockname()[1]) as port,
        socket.create_connection(("127.0.0.1", port), timeout=60) as client,
    ):
        connection, _ = server.accept()
        client.settimeout(3.0)  # without room for so long: it is held back
        with connection:
            while sent < most and not held_back:
                try:
                    sent += client.send(data[sent % len(data) :])
                except TimeoutError:
                    held_back = True
            client.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as stream:
                received = stream.read()
    assert held_back
    assert received == (data * (sent // len(data) + 1))[:sent]


def test_a_queue_is_bounded() -> None:
    with way() as (one, into, _):
        while one.wants_more:
            into.send(bytes(PIECE))
            one.take(0.0)
        assert MOST_HELD - PIECE < one.held <= MOST_HELD


def test_a_piece_arrives_after_half_a_round_trip_and_its_own_length() -> None:
    with way() as (one, into, out):
        into.send(bytes(PIECE))
        one.take(10.0)
        assert one.due() == pytest.approx(10.0 + DELAY + SECONDS)
        one.give(10.0 + DELAY)
        assert received(out) == 0
        one.give(10.0 + DELAY + SECONDS)
        assert received(out) == PIECE
        assert one.due() is None


def test_the_rate_is_kept_in_the_line_s_own_time() -> None:
    """A late wake-up is made up for; a pause of the sender is not."""
    with way() as (one, into, out):
        for _ in range(3):
            into.send(bytes(PIECE))
            one.take(0.0)
        one.give(DELAY + 2.5 * SECONDS)  # late for the first, and for the second
        assert received(out) == 2 * PIECE
        assert one.due() == pytest.approx(DELAY + 3 * SECONDS)
        one.give(DELAY + 3 * SECONDS)
        into.send(bytes(PIECE))
        one.take(100.0)
        assert one.due() == pytest.approx(100.0 + DELAY + SECONDS)


def test_a_connection_costs_a_round_trip() -> None:
    with way() as (one, into, _):
        one.opens_at = 5.0
        into.send(b"x")
        one.take(1.0)
        assert one.due() == pytest.approx(5.0 + DELAY, abs=SECONDS)


def test_a_slow_receiver_is_not_caught_up_with_in_a_burst() -> None:
    with way() as (one, into, out):
        pieces = 0
        while not one.wants_to_write:  # until the receiver's buffers are full
            into.send(bytes(PIECE))
            one.take(0.0)
            pieces += 1
            one.give(1000.0)
        assert one.due() is None
        into.send(bytes(PIECE))
        one.take(0.0)
        while received(out):
            pass
        one.unblock(2000.0)
        one.give(2000.0)
        assert one.due() == pytest.approx(2000.0 + SECONDS)
