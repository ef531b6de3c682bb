"""Charts as SVG text, to be put inside an HTML page: no library, no script, nothing to load.

Series differ by shape before they differ by colour: the first is solid with filled dots, the second dashed with hollow
dots, the third dotted. So a page stays readable in grey, in print and for the colour-blind. Put `STYLE` into the page once.
Every chart is an image with a text alternative (`title`); the numbers belong into a table beside it. Whatever is not a
finite number is not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

from markupsafe import Markup

STYLE = Markup("""
  :root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --muted: #656d76; --line: #8c959f55;
    --first: #0a4ea3; --second: #b3530a; --third: #57606a; --good: #1a7f37; --bad: #b3202c; --warn: #8a5a00; --panel: #f4f6f8; }
  @media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --ink: #e6edf3; --muted: #9aa4af; --line: #8c959f66;
    --first: #79b8ff; --second: #ffa657; --third: #b1bac4; --good: #4ac26b; --bad: #ff7b72; --warn: #e3b341; --panel: #161b22; } }
  @media print { :root { color-scheme: light; --paper: #fff; --ink: #000; --muted: #444; --line: #8888;
    --first: #0a4ea3; --second: #b3530a; --third: #57606a; --good: #1a7f37; --bad: #b3202c; --warn: #8a5a00; --panel: #f4f6f8; }
    * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
  svg.chart { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; fill: var(--ink); }
  svg.key { display: inline-block; width: 34px; height: 12px; vertical-align: -1px; }
  .chart .grid { stroke: var(--line); stroke-width: 1; } .chart .axis { stroke: var(--muted); stroke-width: 1; }
  .chart .reference { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 1 3; stroke-linecap: round; fill: none; }
  .chart .limit { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 5 3; }
  .chart text { fill: var(--muted); } .chart text.label { fill: var(--ink); }
  .chart .s0 { stroke: var(--first); } .chart .s1 { stroke: var(--second); } .chart .s2 { stroke: var(--third); }
  .chart .trace { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .chart .s1.trace { stroke-dasharray: 6 4; } .chart .s2.trace { stroke-dasharray: 2 3; }
  .chart .whisker { stroke-width: 1.6; }
  .chart .dot { stroke-width: 1.8; fill: var(--paper); } .chart .s0.dot { fill: var(--first); }
  .chart .area { stroke: none; fill: var(--first); fill-opacity: .22; }
  .chart .muted { stroke: var(--muted); opacity: .65; } .chart .muted.dot { fill: var(--paper); }
  .chart .bar { stroke-width: 1.2; } .chart .s0.bar { fill: var(--first); } .chart .plain.bar { stroke: none; }
  .chart .s1.bar { fill: none; stroke-dasharray: 3 1.5; }
  .chart .break { stroke: var(--paper); stroke-width: 4; }
  .chart .event { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 7 2 1 2; }
  .chart .gap { stroke: var(--muted); stroke-width: 1; }
  .chart .hollow.dot { fill: var(--paper); stroke-width: 1.4; } .chart .cell { fill: none; stroke: var(--line); stroke-width: 1; }
  .chart .good { --tone: var(--good); } .chart .warn { --tone: var(--warn); } .chart .bad { --tone: var(--bad); }
  .chart .sign { stroke: var(--tone); stroke-width: 1.8; fill: none; stroke-linejoin: round; }
  .chart .full.sign { fill: var(--tone); }
  .chart text.sign { fill: var(--tone); stroke: none; font-weight: 700; }
  svg.sign { display: inline-block; width: 14px; height: 14px; vertical-align: -2px; }
""")

WIDTH = 360  # of a chart in its own units; a page shows it at about this many pixels, so that text keeps its size
STRIP_WIDTH, STRIP_ROW = 200, 15
HUGE = 1e100  # beyond it nothing is drawn
INSET = 8  # of strips: a dot at the end of the scale is a whole dot
BAR_ROW, BAR_LABEL, BAR_FIGURES = 19, 116, 88  # of bars: height of a pair, room for its label and for its figures
CELL = 14  # of a calendar: a day
DAY_STEPS = (1, 2, 4, 7, 14, 28, 56, 91, 182, 364, 728)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SIGNS = ("check", "cross", "up", "down", "diamond", "question")


@dataclass(frozen=True)
class Line:
    """A series of a line chart; `whiskers`, if given, are (low, high) in the unit of y, or None, for each point."""

    name: str
    points: Sequence[tuple[float, float]]
    whiskers: Sequence[tuple[float, float] | None] = ()
    dots: bool = False


@dataclass(frozen=True)
class Series:
    """A number for each day; days without one leave a gap. `dots`: hollow dots alone, without a line."""

    name: str
    values: Sequence[tuple[date, float | None]]
    dots: bool = False


@dataclass(frozen=True)
class Pair:
    """A row of bars: `now` is solid, `before` hollow, `reference` a hollow dot. `words`: the label in full.

    `cut`: longer bars than those of the other rows end at the edge, with a gap that shows it.
    """

    label: str
    now: float | None
    before: float | None
    reference: float | None = None
    figures: str = ""
    words: str = ""
    cut: bool = False


@dataclass(frozen=True)
class Mark:
    """What a day of a calendar shows: one of `SIGNS`, a tone (good, warn, bad), and what it means in words."""

    sign: str
    tone: str
    words: str


@dataclass(frozen=True)
class Estimate:
    """A number with its interval. `style`: 0 filled, 1 hollow. `muted`: shown in grey."""

    value: float | None
    low: float | None = None
    high: float | None = None
    style: int = 0
    muted: bool = False


@dataclass(frozen=True)
class Forest:
    """Estimates under each other on one scale: a strip for each row of a table, and the axis for its head."""

    axis: Markup
    rows: tuple[Markup, ...]


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    reference: Sequence[tuple[float, float]] = (),
    height: int = 280,
) -> Markup:
    """Lines, with dots and whiskers where wanted, and a thin dotted reference line (a diagonal, a base rate)."""
    frame = _Frame.of(x_range, y_range, y_label, height)
    parts = [frame.grid(x_label, y_label)]
    if drawn := _finite(reference):
        parts.append(Markup('<polyline class="reference" points="{}"/>').format(frame.path(drawn)))
    for number, line in reversed(list(enumerate(lines))):  # the first is on top
        style, points = min(number, 2), _finite(line.points)
        if len(points) > 1:
            parts.append(Markup('<polyline class="s{} trace" points="{}"/>').format(style, frame.path(points)))
        for (x, _), whisker in zip(line.points, line.whiskers, strict=False):
            if whisker is not None and _are_numbers(x, *whisker):
                low, high = (min(max(end, frame.bottom), frame.top) for end in whisker)
                parts.append(_segment(f"s{style} whisker", frame.x(x), frame.y(low), frame.x(x), frame.y(high)))
        if line.dots:
            parts += [_dot(f"s{style} dot", frame.x(x), frame.y(y)) for x, y in points]
    return _svg(WIDTH, height, title, parts)


def histogram(edges: Sequence[float], counts: Sequence[tuple[str, Sequence[float]]], *, title: str, x_label: str) -> Markup:
    """Shares of rows between the edges: the first series as an area, the others as outlines.

    Bins of different width are drawn as densities (share / width), or the wide ones would look too full.

    Args:
        edges: ascending, one more than counts; an infinite end is drawn as wide as the bin beside it.
        counts: name and counts of each series; one without rows is not drawn.

    Raises:
        ValueError: the edges do not ascend, or there are not as many counts as bins.
    """
    bounds = _bounded(edges)
    if any(len(each) != len(bounds) - 1 for _, each in counts):
        raise ValueError(f"{len(bounds) - 1} bins of a histogram need as many counts in each series")
    widths = [right - left for left, right in pairwise(bounds)]
    even = max(widths) - min(widths) <= 1e-6 * max(widths)
    heights = []
    for _, each in counts:
        total = sum(each)
        shares = [count / total for count in each] if total else []
        if even:
            heights.append([100 * share for share in shares])
        else:
            heights.append([share / width for share, width in zip(shares, widths, strict=False)])
    top = max((height for each in heights for height in each), default=1.0) or 1.0
    y_label = "rows, %" if even else "density of rows"
    frame = _Frame.of((bounds[0], bounds[-1]), (0, top), y_label, 220)
    parts = [frame.grid(x_label, y_label)]
    for number, each in reversed(list(enumerate(heights))):
        if not each:
            continue
        steps = [(bounds[0], 0.0)]
        for left, right, value in zip(bounds, bounds[1:], each, strict=False):
            steps += [(left, value), (right, value)]
        path = frame.path([*steps, (bounds[-1], 0.0)])
        if number == 0:
            parts.append(Markup('<polygon class="area" points="{}"/>').format(path))
        parts.append(Markup('<polyline class="s{} trace" points="{}"/>').format(min(number, 2), path))
    return _svg(WIDTH, 220, title, parts)


def interval_plot(estimates: Sequence[Estimate], *, title: str, reference: float | None = None) -> Markup:
    """Dots with whiskers under each other, their own axis below; `reference` is a vertical line that the axis includes."""
    low, high = span(estimates, reference)
    scale, bottom = _scale(low, high), STRIP_ROW * len(estimates)
    parts = [_segment("axis", INSET, bottom + 2, STRIP_WIDTH - INSET, bottom + 2), *_strip_ticks(low, high, bottom + 2, 1)]
    if reference is not None:
        parts.append(_segment("reference", scale(reference), 0, scale(reference), bottom + 2))
    for row, estimate in enumerate(estimates):
        parts += _marks(estimate, scale, STRIP_ROW * (row + 0.5))
    return _svg(STRIP_WIDTH, bottom + 18, title, parts)


def forest(
    estimates: Sequence[Estimate],
    *,
    titles: Sequence[str],
    axis_title: str,
    reference: float = 0.0,
    height: int = 18,
    limits: Sequence[float | None] = (),
) -> Forest:
    """Estimates of the rows of a table, on one scale that the ones that are not muted decide; longer whiskers get an arrow.

    `limits`, if given, has a number, or None, for each row: a dashed line, and the scale includes it.
    """
    told = [estimate for estimate in estimates if not estimate.muted and _are_numbers(estimate.value)]
    low, high = span([*(told or estimates), *map(Estimate, limits)], reference)
    scale = _scale(low, high)
    axis = [_segment("axis", INSET, 17, STRIP_WIDTH - INSET, 17), *_strip_ticks(low, high, 17, -1)]
    rows = []
    for number, (estimate, title) in enumerate(zip(estimates, titles, strict=True)):
        lines = [_segment("reference", scale(reference), 0, scale(reference), height)]
        limit = limits[number] if number < len(limits) else None
        if limit is not None and _are_numbers(limit):
            lines.append(_segment("limit", scale(limit), 0, scale(limit), height))
        rows.append(_svg(STRIP_WIDTH, height, title, [*lines, *_marks(estimate, scale, height / 2)]))
    return Forest(_svg(STRIP_WIDTH, 20, axis_title, axis), tuple(rows))


def timeline(
    series: Sequence[Series],
    *,
    title: str,
    y_label: str,
    events: Sequence[tuple[date, str]] = (),
    width: int = WIDTH,
    height: int = 200,
    floor: float | None = None,
) -> Markup:
    """Numbers by day: lines that break where a day has none, hollow dots, and labelled vertical lines for events.

    Args:
        events: a day and its label; one on a day outside those of the series is not drawn.
        floor: what the y axis includes.
    """
    found = [[(day, value if value is not None and _are_numbers(value) else None) for day, value in s.values] for s in series]
    days = [day for each in found for day, _ in each]
    if not days:
        return _svg(width, height, title, [_text(width / 2, height / 2, "nothing to show", "middle")])
    first, last = min(days), max(days)
    shown = sorted((day, label) for day, label in events if first <= day <= last)
    low, high = span([Estimate(value) for each in found for _, value in each], floor)
    room = 0.06 * (high - low)
    lanes, above = _lanes([(day - first).days / max((last - first).days, 1) for day, _ in shown], [e[1] for e in shown], width)
    frame = _Frame.of(
        (first.toordinal(), last.toordinal()),
        (low if low == floor else low - room, high + room),
        y_label,
        height,
        width,
        above,
    )
    parts = [frame.grid(_years(first, last), y_label, _day_marks(first, last, width))]
    for (day, label), lane in zip(shown, lanes, strict=True):
        at = frame.x(day.toordinal())
        over = at + 4 + 6 * len(label) > width
        parts.append(_segment("event", at, 22 + 12 * lane, at, frame.y0))
        parts.append(_text(at - 4 if over else at + 4, 30 + 12 * lane, label, "end" if over else "start", "label"))
    for number, each in reversed(list(enumerate(found))):
        style = min(number, 2)
        if series[number].dots:
            parts += [_dot(f"s{style} hollow dot", frame.x(d.toordinal()), frame.y(v), 2.6) for d, v in each if v is not None]
            continue
        for run in _runs(each):
            spots = [(float(day.toordinal()), value) for day, value in run]
            if len(spots) > 1:
                parts.append(Markup('<polyline class="s{} trace" points="{}"/>').format(style, frame.path(spots)))
            else:
                parts += [_dot(f"s{style} dot", frame.x(x), frame.y(y), 2.6) for x, y in spots]
    return _svg(width, height, title, parts)


def bars(pairs: Sequence[Pair], *, title: str, heading: str = "") -> Markup:
    """Pairs of bars under each other, each with its label in words and its figures: shares of cells of whatever width."""
    whole = [pair for pair in pairs if not pair.cut] or pairs
    numbers = [each for pair in whole for each in (pair.now, pair.before, pair.reference)]
    top = max((each for each in numbers if each is not None and _are_numbers(each)), default=0.0)
    start, room = BAR_LABEL + 6, WIDTH - BAR_LABEL - BAR_FIGURES - 12

    def length(value: float) -> float:
        return min(value / top, 1.0) * room if top > 0 and value > 0 else 0.0

    parts = [_text(WIDTH, 11, heading, "end")] if heading else []
    head = 18 if heading else 2
    for row, pair in enumerate(pairs):
        y, drawn = head + BAR_ROW * row, []
        for value, kind, at in ((pair.before, "s1 bar", y + 1.5), (pair.now, "s0 bar", y + 9)):
            if value is not None and _are_numbers(value):
                drawn.append(_box(kind, start, at, length(value), 6))
                if value > top > 0:
                    drawn.append(_segment("break", start + room - 13, at + 9, start + room - 7, at - 3))
        if pair.reference is not None and _are_numbers(pair.reference):
            drawn.append(_dot("s2 hollow dot", start + length(pair.reference), y + 8.2, 2.8))
        drawn += [
            _text(BAR_LABEL, y + 12, _cut(pair.label, 20), "end", "label"),
            _text(WIDTH, y + 12, pair.figures, "end"),
        ]
        words = Markup("<title>{}</title>").format(pair.words or pair.label)
        parts.append(Markup("<g>{}{}</g>").format(words, Markup("").join(drawn)))
    bottom = head + BAR_ROW * len(pairs) + 2
    parts.append(_segment("axis", start, head - 1, start, bottom))
    return _svg(WIDTH, bottom, title, parts)


def spark(values: Sequence[float | None], *, title: str) -> Markup:
    """A thin bar for each number, as high as its part of the largest; a small cross where there is none."""
    known = [value for value in values if value is not None and _are_numbers(value)]
    top, step, floor = max(known, default=0.0), STRIP_WIDTH / max(len(values), 1), 19
    parts = [_segment("axis", 0, floor + 0.5, STRIP_WIDTH, floor + 0.5)]
    for number, value in enumerate(values):
        x, wide = number * step, max(step - 2, 0.5)
        if value is None or not _are_numbers(value):
            middle = x + wide / 2
            parts += [_segment("gap", middle - 2, floor - 6, middle + 2, floor - 2)]
            parts += [_segment("gap", middle - 2, floor - 2, middle + 2, floor - 6)]
        elif value > 0:
            tall = max(1.5, _near(value / top) * (floor - 2))
            parts.append(_box("s0 plain bar", x, floor - tall, wide, tall))
    return _svg(STRIP_WIDTH, 20, title, parts)


def calendar(marks: Mapping[date, Mark], *, title: str, last: date, weeks: int = 53) -> tuple[Markup, int]:
    """Days as cells, a column for each week that ends with that of `last`, and the width at which text keeps its size.

    A day without a mark is an empty cell. Weeks before the first mark are left out.
    """
    monday = last - timedelta(days=last.weekday())
    within = [day for day in marks if monday - timedelta(weeks=weeks - 1) <= day <= last]
    start = min(within, default=last)
    start -= timedelta(days=start.weekday())
    columns = (monday - start).days // 7 + 1
    left, head, parts, free = 30, 16, [], 0.0
    for row, name in ((0, "Mon"), (2, "Wed"), (4, "Fri"), (6, "Sun")):
        parts.append(_text(left - 5, head + CELL * row + 11, name, "end"))
    for number in range(columns * 7):
        day = start + timedelta(days=number)
        x, y = left + CELL * (number // 7), head + CELL * (number % 7)
        if number % 7 == 0 and (number == 0 or day.day <= 7) and x >= free:
            label = MONTHS[day.month - 1] + (f" {day.year}" if number == 0 or day.month == 1 else "")
            parts.append(_text(x, 11, label, "start"))
            free = x + 6 * len(label) + 5
        if day > last:
            break
        mark = marks.get(day)
        words = Markup("<title>{}: {}</title>").format(day.isoformat(), mark.words if mark else "no run")
        box = _box("cell", x, y, CELL - 2, CELL - 2)
        drawn = _sign(mark.sign, mark.tone, x, y) if mark else Markup("")
        parts.append(Markup("<g>{}{}{}</g>").format(words, box, drawn))
    width = max(left + CELL * columns + 2, 130)
    return _svg(width, head + CELL * 7, title, parts), width


def sign(name: str, tone: str) -> Markup:
    """A sign of a calendar alone, for a legend or a table; what it means is said in words beside it."""
    return Markup('<svg class="chart sign" viewBox="-1 -1 14 14" aria-hidden="true">{}</svg>').format(_sign(name, tone, 0, 0))


def bar_key(style: int) -> Markup:
    """A sample of a bar for the legend: 0 solid (now), 1 hollow (before), 2 the dot of the reference."""
    shape = Markup('<rect class="s{} bar" x="2" y="3" width="28" height="6"/>').format(style)
    return Markup('<svg class="chart key" viewBox="0 0 34 12" aria-hidden="true">{}</svg>').format(
        _dot("s2 hollow dot", 17, 6, 2.8) if style > 1 else shape
    )


def dot_key(style: int) -> Markup:
    """A sample of a series of hollow dots."""
    dot = _dot(f"s{style} hollow dot", 17, 6, 2.6)
    return Markup('<svg class="chart key" viewBox="0 0 34 12" aria-hidden="true">{}</svg>').format(dot)


def key(style: int, *, dots: bool = True) -> Markup:
    """A sample of a series for the legend; what it means is said in words beside it."""
    dot = _dot(f"s{style} dot", 17, 6) if dots else Markup("")
    line = Markup('<polyline class="s{} trace" points="1,6 33,6"/>').format(style)
    return Markup('<svg class="chart key" viewBox="0 0 34 12" aria-hidden="true">{}{}</svg>').format(line, dot)


def span(estimates: Iterable[Estimate], reference: float | None = None) -> tuple[float, float]:
    """What a scale must cover: all ends and the reference, and never nothing."""
    ends = [end for each in estimates for end in (each.value, each.low, each.high) if end is not None and _are_numbers(end)]
    ends += [reference] if reference is not None and _are_numbers(reference) else []
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    if high - low > 1e-9 * max(abs(low), abs(high), 1 / HUGE):
        return low, high
    room = abs(high) * 0.05 if abs(high) > 1 / HUGE else 0.5
    return low - room, high + room


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (steps of 1, 2 or 5 times a power of ten) within a range, about as many as wanted."""
    raw = (high - low) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda candidate: abs(math.log(candidate / raw)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """With as many decimals as the step needs, and a true minus."""
    largest = max((abs(value) for value in values), default=0.0)
    step = min((abs(b - a) for a, b in pairwise(values)), default=largest) or 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals > 6 or largest >= 1e9:
        digits = 2 + max(0, math.floor(math.log10(largest / step)))
        return [f"{value:.{digits}g}".replace("-", "−") for value in values]
    return [f"{value + 0.0:,.{decimals}f}".replace("-", "−") for value in values]


@dataclass(frozen=True)
class _Frame:
    """The plotting area of a chart: where a value of the data lies on the picture."""

    left: float
    right: float
    bottom: float
    top: float
    x0: float
    x1: float
    y0: float
    y1: float
    y_ticks: tuple[float, ...]

    @classmethod
    def of(
        cls,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        y_label: str,
        height: int,
        width: int = WIDTH,
        above: int = 0,
    ) -> _Frame:
        (left, right), (bottom, top) = _wide(*x_range), _wide(*y_range)
        marks = tuple(ticks(bottom, top))
        digits = max((len(label) for label in tick_labels(marks)), default=1)
        y1 = (20 if y_label else 8) + above
        return cls(left, right, bottom, top, 14 + 6.2 * digits, width - 12, height - 34, y1, marks)

    def x(self, value: float) -> float:
        return self.x0 + _near((value - self.left) / (self.right - self.left)) * (self.x1 - self.x0)

    def y(self, value: float) -> float:
        return self.y0 + _near((value - self.bottom) / (self.top - self.bottom)) * (self.y1 - self.y0)

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)

    def grid(self, x_label: str, y_label: str, x_marks: Sequence[tuple[float, str]] | None = None) -> Markup:
        parts = []
        for value, label in zip(self.y_ticks, tick_labels(self.y_ticks), strict=True):
            at = self.y(value)
            parts += [_segment("grid", self.x0, at, self.x1, at), _text(self.x0 - 6, at + 4, label, "end")]
        if x_marks is None:
            marks = ticks(self.left, self.right)
            x_marks = list(zip(marks, tick_labels(marks), strict=True))
        for value, label in x_marks:
            at = self.x(value)
            anchor = "end" if at > self.x1 - 8 and len(label) > 3 else "middle"
            parts += [_segment("axis", at, self.y0, at, self.y0 + 4), _text(at, self.y0 + 16, label, anchor)]
        parts += [
            _segment("axis", self.x0, self.y0, self.x1, self.y0),
            _text((self.x0 + self.x1) / 2, self.y0 + 30, x_label, "middle", "label"),
            _text(2, 11, y_label, "start", "label"),
        ]
        return Markup("").join(parts)


def _scale(low: float, high: float) -> Callable[[float], float]:
    return lambda value: INSET + _near((value - low) / (high - low)) * (STRIP_WIDTH - 2 * INSET)


def _near(share: float) -> float:
    """Where on a scale, 0 to 1: what is far beyond its ends is as good as nearer, and a picture has few digits."""
    return min(max(share, -10.0), 11.0)


def _strip_ticks(low: float, high: float, y: float, side: int) -> list[Markup]:
    """Three or so, below (side 1) or above (-1) an axis."""
    scale, values = _scale(low, high), ticks(low, high, 3)
    parts = []
    for value, label in zip(values, tick_labels(values), strict=True):
        room = 3.2 * len(label)
        at = min(max(scale(value), room), STRIP_WIDTH - room)
        parts += [
            _segment("axis", scale(value), y, scale(value), y + 4 * side),
            _text(at, y + (15 if side > 0 else -6), label, "middle"),
        ]
    return parts


def _marks(estimate: Estimate, scale: Callable[[float], float], y: float) -> list[Markup]:
    """Dot and whisker on a strip; an arrow where the whisker leaves it."""
    if estimate.value is None or not _are_numbers(estimate.value):
        return [_text(STRIP_WIDTH / 2, y + 4, "cannot be told", "middle")]
    kind = "muted" if estimate.muted else f"s{estimate.style}"
    first, last = INSET - 5, STRIP_WIDTH - INSET + 5
    parts = []
    if estimate.low is not None and estimate.high is not None and _are_numbers(estimate.low, estimate.high):
        left, right = (min(max(scale(end), first), last) for end in (estimate.low, estimate.high))
        parts.append(_segment(f"{kind} whisker", left, y, right, y))
        for at, end, turn in ((left, scale(estimate.low), 1), (right, scale(estimate.high), -1)):
            if abs(end - at) > 0.01:
                points = f"{at + 5 * turn:.1f},{y - 4:.1f} {at:.1f},{y:.1f} {at + 5 * turn:.1f},{y + 4:.1f}"
                parts.append(Markup('<polyline class="{} whisker" fill="none" points="{}"/>').format(kind, points))
            else:
                parts.append(_segment(f"{kind} whisker", at, y - 3.5, at, y + 3.5))
    at = scale(estimate.value)
    if first <= at <= last:
        parts.append(_dot(f"{kind} dot", at, y))
    return parts


def _svg(width: float, height: float, title: str, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg class="chart" role="img" viewBox="0 0 {} {}" aria-label="{}"><title>{}</title>{}</svg>').format(
        f"{width:g}", f"{height:g}", title, title, Markup("").join(parts)
    )


def _segment(kind: str, x0: float, y0: float, x1: float, y1: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x0, y0, x1, y1)


def _box(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(kind, x, y, width, height)


def _dot(kind: str, x: float, y: float, radius: float = 3.6) -> Markup:
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:g}"/>').format(kind, x, y, radius)


def _sign(name: str, tone: str, x: float, y: float) -> Markup:
    """A sign in a box of 12 by 12 at a place."""

    def shape(kind: str, *points: tuple[float, float]) -> Markup:
        told = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points)
        return Markup('<polyline class="{} {} sign" points="{}"/>').format(tone, kind, told)

    if name == "check":
        return shape("open", (2.5, 6.5), (5, 9), (9.5, 3))
    if name == "cross":
        return shape("open", (2, 2), (10, 10)) + shape("open", (2, 10), (10, 2))
    if name == "up":
        return shape("full", (6, 2), (10.2, 9.8), (1.8, 9.8), (6, 2))
    if name == "down":
        return shape("open", (6, 10), (10.2, 2.2), (1.8, 2.2), (6, 10))
    if name == "diamond":
        return shape("full", (6, 1.5), (10.5, 6), (6, 10.5), (1.5, 6), (6, 1.5))
    if name == "question":
        return _text(x + 6, y + 10, "?", "middle", f"{tone} sign")
    raise ValueError(f"{name!r} is no sign: there are {', '.join(SIGNS)}")


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, text)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _runs(values: Sequence[tuple[date, float | None]]) -> list[list[tuple[date, float]]]:
    """Stretches of days that follow each other and have a number."""
    runs: list[list[tuple[date, float]]] = []
    for day, value in sorted(values, key=lambda each: each[0]):
        if value is None:
            continue
        if runs and (day - runs[-1][-1][0]).days <= 1:
            runs[-1].append((day, value))
        else:
            runs.append([(day, value)])
    return runs


def _lanes(places: Sequence[float], labels: Sequence[str], width: int) -> tuple[list[int], int]:
    """For labels at places (0 to 1) a line each, so that they do not cover each other, and the room that it takes."""
    ends: list[float] = []
    lanes = []
    for place, label in zip(places, labels, strict=True):
        wide = 6.2 * len(label) + 8
        begin = min(place * (width - 60) + 48, max(0.0, width - wide))
        lane = next((number for number, end in enumerate(ends) if end <= begin), len(ends))
        if lane == len(ends):
            ends.append(0.0)
        ends[lane] = begin + wide
        lanes.append(lane)
    return lanes, 12 * len(ends)


def _day_marks(first: date, last: date, width: int) -> list[tuple[float, str]]:
    """Days of an axis, so far apart that their labels do not touch; the last day is one of them."""
    wanted, length = max(width // 62, 2), (last - first).days
    step = next((step for step in DAY_STEPS if length / step < wanted), DAY_STEPS[-1] * (1 + length // 2000))
    days = [last - timedelta(days=back) for back in range(0, length + 1, step)]
    return [(day.toordinal(), f"{day.day} {MONTHS[day.month - 1]}") for day in reversed(days)]


def _years(first: date, last: date) -> str:
    return str(first.year) if first.year == last.year else f"{first.year} to {last.year}"


def _wide(low: float, high: float) -> tuple[float, float]:
    """A range that is one: of a single value, a little to both sides."""
    return span([Estimate(low), Estimate(high)])


def _bounded(edges: Sequence[float]) -> list[float]:
    """Edges with finite ends.

    Raises:
        ValueError: they do not ascend, or are no numbers.
    """
    bounds = list(edges)
    if len(bounds) > 2 and bounds[0] == -math.inf and _are_numbers(bounds[1]):
        bounds[0] = 2 * bounds[1] - bounds[2] if _are_numbers(bounds[2]) else bounds[1] - 1
    if len(bounds) > 2 and bounds[-1] == math.inf and _are_numbers(*bounds[-3:-1]):
        bounds[-1] = 2 * bounds[-2] - bounds[-3]
    if len(bounds) < 2 or not _are_numbers(*bounds) or any(b <= a for a, b in pairwise(bounds)):
        raise ValueError("edges of a histogram must be numbers that ascend; only the ends may be infinite")
    return bounds


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if _are_numbers(x, y)]


def _are_numbers(*values: object) -> bool:
    """Finite, and small enough that differences are too."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) and -HUGE < value < HUGE for value in values)
