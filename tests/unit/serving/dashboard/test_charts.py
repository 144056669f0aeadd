"""Plots draw what they are given, to scale, and nothing where there is nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from tidemill_serving.dashboard import charts
from tidemill_serving.dashboard.charts import Bar, Line, Share, Span
from tidemill_serving.dashboard.markup import Tone

START = datetime(2024, 1, 1, tzinfo=UTC)
HOURS = [START + timedelta(hours=hour) for hour in range(5)]
GAP = list(zip(HOURS, [0.1, 0.2, None, 0.4, 0.3], strict=True))
NASTY = "<b>&'\""


def drawn() -> list[Markup]:
    return [
        charts.stacked([Share(what=NASTY, amount=1, tone=Tone.GOOD)], label=NASTY),
        charts.bars([Bar(label=NASTY, amount=1, text=NASTY, title=NASTY)], top=2, marks=[(1, NASTY)], label=NASTY),
        charts.sparkline([1, 2, 3], label=NASTY),
        charts.curves(
            [Line(name=NASTY, points=list(zip(HOURS, [0.1, 0.2, None, 0.4, 0.3], strict=True)))], label=NASTY
        ),
        charts.reliability([(0.1, 0.2, 5), (0.9, 0.8, 50)], label=NASTY),
        charts.timeline(
            [Span(lane=NASTY, start=HOURS[0], end=HOURS[1], tone=Tone.BAD, title=NASTY)],
            start=HOURS[0],
            end=HOURS[-1],
            label=NASTY,
        ),
    ]


@pytest.mark.parametrize("plot", drawn())
def test_every_plot_is_well_formed_and_says_what_it_shows(plot):
    ElementTree.fromstring(plot)  # noqa: S314 - our own drawing
    assert "<b>&" not in plot
    assert "aria-label" in plot


def test_shares_fill_the_bar_and_the_smallest_is_seen():
    shares = [Share(what="equal", amount=1_000_000, tone=Tone.GOOD), Share(what="bad", amount=1, tone=Tone.BAD)]
    widths = [float(width) for width in re.findall(r"width='([\d.]+)%'", charts.stacked(shares, label="parity"))]
    assert sum(widths) == pytest.approx(100)
    assert widths[1] > 1


def test_bars_end_at_the_top_and_thresholds_stand_where_they_should():
    made = charts.bars([Bar(label="a", amount=9, text="9")], top=0.4, marks=[(0.1, "watch")], label="drift")
    assert "width:100.00%" in made
    assert "left:25.00%" in made


def test_a_gap_breaks_the_curve():
    path = re.search(r" d='([^']+)'", charts.curves([Line(name="auc", points=GAP)], label="auc"))
    assert path is not None
    assert path[1].count("M") == 2


def test_a_single_point_and_a_flat_line_are_drawn():
    assert "circle" in charts.curves([Line(name="auc", points=[(START, 0.7)])], label="auc")
    flat = [Line(name="auc", points=[(at, 0.7) for at in HOURS])]
    assert "nan" not in charts.curves(flat, label="auc").lower()


def test_spans_of_no_length_are_seen():
    spans = [Span(lane="a", start=START, end=START, tone=Tone.GOOD, title="short")]
    made = charts.timeline(spans, start=START, end=START, label="runs")
    assert "width='2.50'" in made


@pytest.mark.parametrize(
    "nothing",
    [
        charts.stacked([], label="x"),
        charts.sparkline([], label="x"),
        charts.sparkline([0, 0], label="x"),
        charts.curves([Line(name="a", points=[(START, None)])], label="x"),
        charts.reliability([], label="x"),
        charts.reliability([(0.1, 0.2, 0)], label="x"),
    ],
)
def test_where_there_is_nothing_nothing_is_drawn(nothing):
    assert nothing == ""
