"""Load for an HTTP server over raw sockets, from one event loop: closed (each connection asks again at once) or open
(requests are due at given instants, and waiting for a free connection counts as latency).

`measure` runs it as a process of its own, so that the load does not take the server's turn. It says how late it was
itself: an answer cannot be earlier than its question, and a latency counts from when the question was due.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import deque
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np
import uvloop


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of whom. `rate` is None for a closed loop; `bodies` are asked in turn."""

    port: int
    path: str
    bodies: tuple[str, ...]
    connections: int
    seconds: float
    warm_up: float = 1.0
    rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Requests a second, and latencies in milliseconds. `late` is the p99 of what the load itself was late by, which is
    part of the latencies; 0 in a closed loop, where nothing is due."""

    rate: float
    p50: float
    p99: float
    worst: float
    failed: int
    requests: int
    late: float = 0.0


def measure(load: Load) -> Measured:
    """Put the load on the server, from another process."""
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(asdict(load)), check=True, capture_output=True, text=True
    )
    return Measured(**json.loads(done.stdout))


class _Line(asyncio.Protocol):
    """One connection: sends a request, finds the end of the answer, reports."""

    def __init__(self, runner: _Runner) -> None:
        self._runner, self._rest = runner, b""
        self.started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._runner.free(self)

    def ask(self, request: bytes, due: float) -> None:
        self.started = due
        self._transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        answer = self._rest + data if self._rest else data
        due = _length_of_answer(answer)
        if not due or len(answer) < due:
            self._rest = answer
            return
        self._rest = b""  # nothing follows: the next request has not been sent
        self._runner.answered(self, answer.startswith(b"HTTP/1.1 200"))


def _length_of_answer(answer: bytes) -> int:
    """Of head and body together; 0 while the head is not complete."""
    head = answer.find(b"\r\n\r\n")
    if head < 0:
        return 0
    name = b"content-length:"
    place = answer.find(name, 0, head)
    if place < 0:  # spelled in other letters
        place = answer[:head].lower().find(name)
    return head + 4 + int(answer[place + len(name) : answer.find(b"\r\n", place)])


class _Runner:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._requests = [_request(load, body) for body in load.bodies]
        self._next = 0
        self._idle: deque[_Line] = deque()
        self._due: deque[float] = deque()
        self._begin = perf_counter() + load.warm_up
        self._end = self._begin + load.seconds
        self._latencies: list[float] = []
        self._late: list[float] = []
        self._failed = 0

    async def run(self) -> Measured:
        loop = asyncio.get_running_loop()
        for _ in range(self._load.connections):
            await loop.create_connection(lambda: _Line(self), "127.0.0.1", self._load.port)
        arrivals = None if self._load.rate is None else asyncio.ensure_future(self._arrive(self._load.rate))
        await asyncio.sleep(self._end - perf_counter())
        if arrivals is not None:
            await arrivals
        times = np.array(self._latencies) * 1e3
        return Measured(
            rate=len(times) / self._load.seconds,
            p50=float(np.percentile(times, 50)),
            p99=float(np.percentile(times, 99)),
            worst=float(times.max()),
            failed=self._failed,
            requests=len(times),
            late=float(np.percentile(self._late, 99)) * 1e3 if self._late else 0.0,
        )

    async def _arrive(self, rate: float) -> None:
        """Poisson arrivals at the rate."""
        draw = random.Random(7)
        due = perf_counter()
        while due < self._end:
            due += draw.expovariate(rate)
            pause = due - perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            self._late.append(perf_counter() - due)
            if self._idle:
                self._ask(self._idle.popleft(), due)
            else:
                self._due.append(due)

    def free(self, line: _Line) -> None:
        if self._load.rate is None:
            if perf_counter() < self._end:
                self._ask(line, perf_counter())
        elif self._due:
            self._ask(line, self._due.popleft())
        else:
            self._idle.append(line)

    def answered(self, line: _Line, ok: bool) -> None:
        now = perf_counter()
        if self._begin <= now < self._end:
            self._latencies.append(now - line.started)
            self._failed += not ok
        self.free(line)

    def _ask(self, line: _Line, due: float) -> None:
        self._next = (self._next + 1) % len(self._requests)
        line.ask(self._requests[self._next], due)


def _request(load: Load, body: str) -> bytes:
    raw = body.encode()
    head = f"POST {load.path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(raw) + raw


if __name__ == "__main__":
    plain = json.load(sys.stdin)
    found = uvloop.run(_Runner(Load(**(plain | {"bodies": tuple(plain["bodies"])}))).run())
    sys.stdout.write(json.dumps(asdict(found)))
