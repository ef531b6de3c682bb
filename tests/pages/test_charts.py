"""Charts: what is drawn where, and that nothing breaks them."""

from __future__ import annotations

import math
from datetime import date, timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from include import charts
from include.charts import Estimate, Line, Mark, Pair, Series

NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers(-(10**12), 10**12))
ESTIMATES = st.lists(st.builds(Estimate, NUMBERS, NUMBERS, NUMBERS, st.sampled_from([0, 1]), st.booleans()), max_size=6)


def parsed(svg: Markup) -> ElementTree.Element:
    element = ElementTree.fromstring(svg)
    assert element.get("role") == "img" and element.get("aria-label") == element.findtext("title")
    assert "nan" not in svg and "inf" not in svg
    return element


def of_class(svg: Markup, name: str) -> list[ElementTree.Element]:
    return [each for each in parsed(svg).iter() if name in (each.get("class") or "").split()]


def points(element: ElementTree.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in element.attrib["points"].split()]  # type: ignore[misc]


def chart(*lines: Line, high: float = 1.0) -> Markup:
    return charts.line_chart(lines, title="t", x_label="x", y_label="y", x_range=(0, high), y_range=(0, high))


def test_a_line_goes_through_its_points_and_up_is_more() -> None:
    (line,) = of_class(chart(Line("a", [(0, 0), (0.5, 0.5), (1, 1)])), "trace")
    (x0, y0), (x1, y1), (x2, y2) = points(line)
    assert x0 < x1 < x2 and y0 > y1 > y2
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1) and y1 == pytest.approx((y0 + y2) / 2, abs=0.1)


def test_series_differ_by_more_than_colour() -> None:
    svg = chart(Line("a", [(0, 0), (1, 1)], dots=True), Line("b", [(0, 1), (1, 0)], dots=True))
    assert len(of_class(svg, "s0")) == len(of_class(svg, "s1")) == 3
    assert ".s1.trace { stroke-dasharray" in charts.STYLE and ".s0.dot { fill: var(--first)" in charts.STYLE


def test_whiskers_end_at_the_frame() -> None:
    svg = chart(Line("a", [(0.5, 0.5)], whiskers=[(-5.0, 5.0)], dots=True))
    (whisker,), frame = of_class(svg, "whisker"), parsed(svg).attrib["viewBox"].split()
    assert 0 <= float(whisker.attrib["y2"]) < float(whisker.attrib["y1"]) <= float(frame[3])


def test_a_histogram_of_even_bins_shows_shares() -> None:
    svg = charts.histogram([0, 1, 2], [("a", [1, 3])], title="t", x_label="x")
    (outline,) = of_class(svg, "trace")
    (_, floor), (_, low), _, (_, high), *_ = points(outline)
    assert (floor - high) / (floor - low) == pytest.approx(3, rel=0.01)
    assert "rows, %" in svg


def test_a_histogram_of_uneven_bins_shows_densities() -> None:
    svg = charts.histogram([0, 1, 3], [("a", [2, 4])], title="t", x_label="x")
    (outline,) = of_class(svg, "trace")
    heights = {y for _, y in points(outline)}
    assert len(heights) == 2 and "density" in svg


def test_a_histogram_draws_infinite_ends_as_wide_as_their_neighbours() -> None:
    svg = charts.histogram([-math.inf, 1, 2, math.inf], [("a", [1, 1, 1])], title="t", x_label="x")
    (outline,) = of_class(svg, "trace")
    xs = sorted({x for x, _ in points(outline)})
    assert len(xs) == 4 and xs[1] - xs[0] == pytest.approx(xs[3] - xs[2], abs=0.2)


@pytest.mark.parametrize("edges", [[0], [1, 0], [0, 0, 1], [0, math.nan, 1], [0, math.inf, 2]])
def test_a_histogram_of_edges_that_are_none_is_refused(edges: list[float]) -> None:
    with pytest.raises(ValueError, match="edges"):
        charts.histogram(edges, [("a", [1] * (len(edges) - 1))], title="t", x_label="x")


def test_a_histogram_needs_a_count_for_each_bin() -> None:
    with pytest.raises(ValueError, match="2 bins"):
        charts.histogram([0, 1, 2], [("a", [1])], title="t", x_label="x")


def test_an_interval_plot_has_a_mark_for_each_estimate_in_order_of_size() -> None:
    svg = charts.interval_plot([Estimate(1, 0.5, 1.5), Estimate(2, 1.5, 2.5, style=1)], title="t")
    first, second = (float(of_class(svg, name)[-1].attrib["cx"]) for name in ("s0", "s1"))
    assert first < second
    assert len(of_class(svg, "whisker")) == 6  # a line and two ends each


def test_an_interval_plot_includes_its_reference() -> None:
    svg = charts.interval_plot([Estimate(5, 4, 6)], title="t", reference=0.0)
    (line,), (dot,) = of_class(svg, "reference"), of_class(svg, "dot")
    assert float(line.attrib["x1"]) < float(dot.attrib["cx"])


def test_a_forest_has_one_scale_that_muted_rows_do_not_stretch() -> None:
    told, muted = [Estimate(1, 0.5, 1.5), Estimate(-1, -2, 0)], Estimate(0.5, -100, 100, muted=True)
    plain = charts.forest(told, titles=["a", "b"], axis_title="scale")
    mixed = charts.forest([*told, muted], titles=["a", "b", "c"], axis_title="scale")
    assert mixed.rows[:2] == plain.rows and mixed.axis == plain.axis
    grey = mixed.rows[2]
    assert not of_class(grey, "s0") and len([e for e in of_class(grey, "whisker") if e.tag == "polyline"]) == 2  # arrows


def test_what_cannot_be_told_is_said() -> None:
    assert "cannot be told" in charts.interval_plot([Estimate(None)], title="t")


def test_text_is_escaped() -> None:
    element = parsed(charts.line_chart([], title='<&">', x_label="<x>", y_label="&", x_range=(0, 1), y_range=(0, 1)))
    assert element.findtext("title") == '<&">'


@settings(deadline=None)
@given(ESTIMATES, NUMBERS.filter(lambda number: number is None or math.isfinite(number)))
def test_no_estimates_break_a_plot(estimates: list[Estimate], reference: float | None) -> None:
    for svg in (
        charts.interval_plot(estimates, title="t", reference=reference),
        *charts.forest(estimates, titles=["t"] * len(estimates), axis_title="a").rows,
    ):
        left, _, width, _ = map(float, parsed(svg).attrib["viewBox"].split())
        assert all(left <= float(dot.attrib["cx"]) <= width for dot in of_class(svg, "dot"))


@settings(deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8), NUMBERS.filter(lambda number: number is None or math.isfinite(number)))
def test_no_points_break_a_line_chart(found: list[tuple[float, float]], high: float | None) -> None:
    parsed(chart(Line("a", found, whiskers=found, dots=True), high=high if high is not None else 0.0))


@settings(deadline=None)
@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks_are_round_within_and_told_apart(low: float, width: float) -> None:
    low, high = charts.span([Estimate(low), Estimate(low + width)])
    found = charts.ticks(low, high)
    slack = 1e-6 * (high - low)
    assert 1 <= len(found) <= 12 and all(low - slack <= tick <= high + slack for tick in found)
    labels = charts.tick_labels(found)
    assert len(set(labels)) == len(labels)
    for tick, label in zip(found, labels, strict=True):
        assert float(label.replace("−", "-").replace(",", "")) == pytest.approx(tick, abs=slack + 1e-9)


def day(number: int) -> date:
    return date(2013, 6, 1) + timedelta(days=number)


def test_a_timeline_breaks_where_a_day_has_no_number() -> None:
    values = [(day(n), None if n == 3 else float(n)) for n in range(8) if n != 6]
    svg = charts.timeline([Series("a", values)], title="t", y_label="y")
    first, second = of_class(svg, "trace")
    assert len(points(first)) == 3 and len(points(second)) == 2
    (alone,) = of_class(svg, "dot")  # a single day between two gaps
    assert float(alone.attrib["cx"]) > points(second)[-1][0]


def test_a_timeline_has_hollow_dots_and_labelled_events_that_do_not_cover_each_other() -> None:
    values = [(day(n), float(n)) for n in range(30)]
    events = [(day(10), "version 2"), (day(11), "back to 1"), (day(90), "later")]
    svg = charts.timeline([Series("a", values), Series("b", values, dots=True)], title="t", y_label="y", events=events)
    assert len(of_class(svg, "trace")) == 1 and len(of_class(svg, "hollow")) == 30
    assert ".chart .hollow.dot { fill: var(--paper)" in charts.STYLE
    one, other = of_class(svg, "event")
    assert one.attrib["x1"] != other.attrib["x1"] and one.attrib["y1"] != other.attrib["y1"]
    assert "version 2" in svg and "back to 1" in svg and "later" not in svg


@pytest.mark.parametrize("length", [1, 2, 10, 90, 400, 5000])
def test_days_of_an_axis_do_not_touch_and_end_with_the_last(length: int) -> None:
    svg = charts.timeline([Series("a", [(day(n), 1.0) for n in range(length)])], title="t", y_label="y")
    marks = [text for text in parsed(svg).iter("text") if (text.text or "")[-3:] in charts.MONTHS]
    places = [float(mark.attrib["x"]) for mark in marks]
    assert marks[-1].text == f"{day(length - 1).day} {charts.MONTHS[day(length - 1).month - 1]}"
    assert all(b - a > 40 for a, b in pairwise(places)) and len(places) < 8


def test_a_timeline_of_nothing_says_so() -> None:
    assert "nothing to show" in charts.timeline([], title="t", y_label="y")


def test_bars_are_as_long_as_their_numbers_and_differ_by_shape() -> None:
    svg = charts.bars([Pair("a", 0.1, 0.2, 0.3, "20 → 10"), Pair("b", 0.3, None)], title="t", heading="h")
    now, before, dots = of_class(svg, "s0"), of_class(svg, "s1"), of_class(svg, "hollow")
    assert float(now[1].attrib["width"]) == pytest.approx(3 * float(now[0].attrib["width"]), abs=0.2)
    assert len(before) == 1 and len(dots) == 1 and "20 → 10" in svg
    assert ".s1.bar { fill: none; stroke-dasharray" in charts.STYLE


def test_a_bar_that_may_be_cut_does_not_flatten_the_others() -> None:
    svg = charts.bars([Pair("a", 0.1, 0.1), Pair("rest", 0.9, 0.8, cut=True)], title="t")
    widths = [float(bar.attrib["width"]) for bar in of_class(svg, "s0")]
    assert widths[0] == widths[1] and len(of_class(svg, "break")) == 2
    assert not of_class(charts.bars([Pair("rest", 0.9, 0.8, cut=True)], title="t"), "break")


def test_a_spark_has_a_bar_for_each_number_and_a_cross_for_none() -> None:
    svg = charts.spark([0.1, None, 0.0, 0.2, math.nan], title="t")
    low, high = of_class(svg, "bar")
    assert float(high.attrib["height"]) == pytest.approx(2 * float(low.attrib["height"]), abs=0.1)
    assert len(of_class(svg, "gap")) == 4


def test_a_calendar_puts_weeks_beside_each_other_and_says_each_day() -> None:
    marks = {day(2): Mark("check", "good", "ok"), day(9): Mark("cross", "bad", "broken")}  # Mondays
    svg, width = charts.calendar(marks, title="t", last=day(9))
    told = [group.findtext("title") for group in parsed(svg).iter("g")]
    assert told[0] == "2013-06-03: ok" and told[-1] == "2013-06-10: broken" and told[1] == "2013-06-04: no run" and len(told) == 8
    left, right = (min(x for x, _ in points(each)) for each in of_class(svg, "open")[:2])
    assert right - left == pytest.approx(charts.CELL, abs=1) and width >= right


def test_every_sign_is_another_shape() -> None:
    drawn = {str(charts.sign(name, "good")) for name in charts.SIGNS}
    assert len(drawn) == len(charts.SIGNS)
    with pytest.raises(ValueError, match="no sign"):
        charts.sign("smile", "good")


def test_a_forest_includes_its_limits() -> None:
    found = charts.forest([Estimate(1, 0.5, 1.5)] * 2, titles=["a", "b"], axis_title="s", limits=[9.0, None])
    (limit,), (dot,) = of_class(found.rows[0], "limit"), of_class(found.rows[0], "dot")
    assert float(limit.attrib["x1"]) > float(dot.attrib["cx"]) and not of_class(found.rows[1], "limit")


@settings(deadline=None)
@given(st.lists(st.tuples(st.dates(), NUMBERS), max_size=8), st.lists(NUMBERS, max_size=8), st.text(max_size=30))
def test_no_numbers_break_what_is_drawn_by_day(
    values: list[tuple[date, float | None]], found: list[float | None], text: str
) -> None:
    text = "".join(char for char in text if char.isprintable())
    parsed(charts.timeline([Series("a", values)] * 2, title="t", y_label="y", events=[(each, text) for each, _ in values]))
    parsed(charts.spark(found, title="t"))
    parsed(charts.bars([Pair(text, each, each, each, text) for each in found], title="t", heading=text))
