"""What `tidemill init` says where a table leaves open what it needs to know."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from tidemill.errors import InputError
from tidemill.scaffold.guess import guess_shape


def test_a_table_without_any_time_says_why_one_is_needed_and_what_there_is():
    table = pl.DataFrame({"user": [1], "amount": [2.0]})
    with pytest.raises(InputError, match=r"No column holds dates or instants.*columns: user, amount\..*event time"):
        guess_shape(table, name="t", key=None, time=None)


def test_several_times_are_named_and_one_that_is_asked_for_is_taken():
    table = pl.DataFrame({"user": [1], "paid": [datetime(2024, 1, 1)], "sent": [datetime(2024, 1, 2)], "amount": [2.0]})
    with pytest.raises(InputError, match=r"could be any of: paid, sent\. Name the column with --time\."):
        guess_shape(table, name="t", key=None, time=None)
    assert guess_shape(table, name="t", key=None, time="sent").time == "sent"
