"""A reader that reads all the while something breaks, and notes whatever should not be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from waiting import PATIENCE

from tidemill.errors import OnlineStoreUnavailableError

Answer = TypeVar("Answer")


@dataclass
class Seen:
    """What the reader saw: how often it was answered, what it was refused for, and every value that cannot be."""

    answers: int = 0
    refused: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def hammering(
    read: Callable[[], Answer], judge: Callable[[Answer], Iterable[str]], *, pause: float = 0.0
) -> Iterator[Seen]:
    """Read again and again in a thread of its own; `judge` says what is wrong with an answer.

    Redis being away is noted as a refusal. Any other error ends the reading and is raised at the end of the block.
    """
    over, seen = threading.Event(), Seen()

    def work() -> None:
        while not over.is_set():
            try:
                found = read()
            except OnlineStoreUnavailableError as error:
                seen.refused.append(str(error))
                over.wait(0.01)
                continue
            seen.wrong += judge(found)
            seen.answers += 1
            if pause:
                over.wait(pause)

    with ThreadPoolExecutor(1, "reader") as thread:
        reading = thread.submit(work)
        try:
            yield seen
        finally:
            over.set()
            reading.result(PATIENCE)
