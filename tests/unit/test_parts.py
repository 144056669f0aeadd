"""Parts of a project are made once, however many threads ask for them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from waiting import PATIENCE

from tidemill.parts import part, take_out


class Shop:
    """Has parts that take as long to make as somebody tells them to."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.made: list[object] = []

    @part
    def slow(self) -> object:
        """Made when it may be."""
        self.asked.set()
        assert self.go_on.wait(PATIENCE)
        self.made.append(object())
        return self.made[-1]

    @part
    def quick(self) -> list[object]:
        return [self]

    @part
    def broken(self) -> object:
        self.made.append(None)
        raise OSError("not now")


def test_two_threads_that_ask_at_the_same_moment_are_given_the_same():
    shop = Shop()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lambda: shop.slow)
        assert shop.asked.wait(PATIENCE)
        second = threads.submit(lambda: shop.slow)
        shop.go_on.set()
        assert first.result(PATIENCE) is second.result(PATIENCE)
    assert len(shop.made) == 1


def test_neither_another_part_nor_another_object_waits_for_one_that_is_being_made():
    shop, other = Shop(), Shop()
    other.go_on.set()
    with ThreadPoolExecutor(1) as thread:
        being_made = thread.submit(lambda: shop.slow)
        assert shop.asked.wait(PATIENCE)
        assert shop.quick == [shop]
        assert other.slow is other.made[0]
        assert not being_made.done()
        shop.go_on.set()


def test_a_part_that_is_taken_out_while_it_is_made_is_taken_out_whole_and_made_anew():
    shop = Shop()
    with ThreadPoolExecutor(2) as threads:
        being_made = threads.submit(lambda: shop.slow)
        assert shop.asked.wait(PATIENCE)
        taken = threads.submit(take_out, shop, "slow")
        shop.go_on.set()
        assert taken.result(PATIENCE) is being_made.result(PATIENCE)
    assert shop.slow is shop.made[1]


def test_a_part_nobody_asked_for_cannot_be_taken_out():
    assert take_out(Shop(), "quick") is None


def test_what_failed_is_tried_again():
    shop = Shop()
    for _ in range(2):
        with pytest.raises(OSError, match="not now"):
            _ = shop.broken
    assert len(shop.made) == 2


def test_a_part_tells_what_it_is_where_its_class_is_asked():
    assert Shop.slow.__doc__ == "Made when it may be."
