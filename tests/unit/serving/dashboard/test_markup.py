"""What pages are made of: everything is escaped, and numbers read like a sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from markupsafe import Markup

from tidemill_serving.dashboard.markup import (
    Tone,
    ago,
    card,
    count,
    empty,
    finding,
    folded,
    lasting,
    table,
    tile,
    trouble,
    value,
)

NASTY = "<script>alert('x')</script>"


@pytest.mark.parametrize(
    "made",
    [
        card(NASTY, NASTY, note=NASTY),
        tile(NASTY, NASTY, NASTY),
        table((NASTY,), [(NASTY,)], label=NASTY),
        empty(NASTY, NASTY, NASTY),
        finding("critical", NASTY, NASTY, NASTY),
        trouble(NASTY),
        value(NASTY),
    ],
)
def test_whatever_comes_from_outside_is_text_and_never_markup(made):
    assert "<script" not in made
    assert "&lt;script" in made


def test_markup_within_markup_stays_what_it_is():
    assert "<b>bold</b>" in card("title", Markup("<b>bold</b>"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "\u2013"),
        (0.25, "250 ms"),
        (42, "42 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3_600, "1 h"),
        (7_500, "2 h 5 min"),
        (86_400 * 6 + 3_600 * 4, "6 d 4 h"),
        (86_400 * 2, "2 d"),
        (-60, "\u221260 s"),
    ],
)
def test_durations_are_told_in_their_largest_units(seconds, text):
    assert lasting(timedelta(seconds=seconds)) == text
    assert lasting(float(seconds)) == text


def test_the_past_the_present_and_the_future_have_words():
    now = datetime(2024, 1, 1, tzinfo=UTC)
    assert ago(None, now) == "never"
    assert ago(now - timedelta(seconds=2), now) == "just now"
    assert ago(now - timedelta(minutes=3), now) == "3 min ago"
    assert ago(now + timedelta(hours=1), now) == "in 1 h"
    assert (count(1, "run"), count(2_000, "run"), count(2, "entity", "entities")) == (
        "1 run",
        "2,000 runs",
        "2 entities",
    )


def test_missing_values_and_truths_are_told_apart():
    assert "null" in value(None)
    assert "false" in value(False)
    assert "0.333333" in value(1 / 3)


def test_a_long_list_is_folded_and_a_short_one_is_not():
    assert "2 more findings" in folded(["a", "b", "c"], 1, "findings")
    assert "details" not in folded(["a"], 1, "findings")


def test_numbers_are_aligned_right_and_columns_must_match():
    made = table(("name", "rows"), [("a", "1")], numbers=(1,), label="counts")
    assert made.count("class='number'") == 2


def test_every_tone_has_its_word():
    assert [tone.value for tone in Tone] == ["good", "watch", "bad", "plain"]
