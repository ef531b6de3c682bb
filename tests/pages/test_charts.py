"""Charts: what is drawn where, and that nothing breaks them."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from include import charts
from include.charts import Estimate, Line

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
