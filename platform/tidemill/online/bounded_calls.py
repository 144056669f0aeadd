"""Calls of a library that may wait for ever, made so that we do not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Found = TypeVar("Found")


class BoundedCalls:
    """Makes calls one after the other, each in a thread of its own, and waits for each for so long.

    One that takes longer goes on by itself, since nothing can end it, and no other is begun before it is done. It does
    not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: Future[object] | None = None

    def run(self, call: Callable[[], Found], *, seconds: float) -> Found:
        """What `call` returned, or raised. Raises TimeoutError where it, or the one before it, is not done in time."""
        if self._last is not None and not self._last.done():
            raise TimeoutError
        answer = Future[Found]()
        self._last = answer  # type: ignore[assignment] - whatever it is, here we only ask whether it is there
        threading.Thread(target=_answer, args=(call, answer), name=self._name, daemon=True).start()
        return answer.result(seconds)


def _answer(call: Callable[[], Found], answer: Future[Found]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's to raise
        answer.set_exception(error)
