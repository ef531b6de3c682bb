"""Drift: did a column, or how two columns go together, change more than chance and its own past explain?

Judged from daily profiles alone (`core.profile`): counts in fixed cells add up over days, so one row of counts per column
and day serves windows of a day, of a week and of four weeks. A window is compared with the `baseline_days` before it. The
distance is G / N_eff (`profile.distance`), which reads as the square of a shift in standard deviations, and its limit is
the larger of

    noise     ncx2.isf(a, cells - 1, N_eff * tolerance) / N_eff
    history   tolerance + expected * F.isf(a, nu, nu * K)

Noise: without drift G is chi-squared; with a change of no consequence it is so with the noncentrality N_eff * tolerance.
History counts where the column's own past windows, each compared with the days before it, vary more than chance makes of
their rows. `expected` is the mean of their distances, with their noise replaced by that of this window. K is the number of
past windows. nu = m² / s² of their distances, between 0.5 and cells - 1, tells of how many independent parts they seem to
be the sum: a scaled chi-squared variable with f degrees of freedom has m² / s² = f / 2, and f is halved as windows that
wobble all in one way have fatter tails than the moments of a few of them tell. a is the chance of a false alarm for one
test: Bonferroni over horizons, columns, and the two tests of each column, whether there is a value and which.

Where there are too few past windows of a length, their days are taken, and K counts how many windows these make. The more
days are given, up to a year, the better a limit knows the seasons; with few, what the season makes anew is an alarm. What a
limit cannot know is a fault that began before the days that are given.

Sources: two-sample G test (Sokal & Rohlf, Biometry, 17.4); noncentral chi-squared as the law of G under a fixed small change
(Agresti, Categorical Data Analysis, 16.3.5); matching of the first two moments of a chi-squared variable (Satterthwaite,
Biometrics Bulletin 2, 1946); z of correlations (Fisher, Metron 1, 1921).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from include.core.profile import DifferentCells, Profile, all_counts, distances, words

State = Literal["ok", "alarm", "cannot judge"]
Kind = Literal["missing", "new values", "vanished", "constant", "range", "scale", "rows"]
# n, Σa, Σb, Σa², Σb², Σab over the numbers of the cells of the rows where both columns have a value.
PairSums = Sequence[float]
Counts = npt.NDArray[np.float64]

# Days of the window → its share of the false alarms. A day shows a fault at once, four weeks show what creeps.
HORIZONS: Mapping[int, float] = {1: 0.5, 7: 0.3, 28: 0.2}
# How two columns go together is judged by the week, and has this part of the false alarms of a run.
PAIR_HORIZON, PAIR_SHARE = 7, 0.1
# A window may lack so many of its days.
ABSENT = 1 / 7
# A column varies by itself if mean or variance of its past distances is so many standard errors above that of chance.
PROVEN = 2.33
# The least nu. Of one whole degree of freedom, the halved moments are this.
LEAST_PARTS = 0.5
# What a broken column shows is so large a share that was in no day before; of rows without a value, less.
SHARE, MISSING = 0.05, 0.01
# A category is gone if so many rows of it were to be expected.
EXPECTED = 20
# A day with fewer rows than this part of the smallest day before, or with more than the largest divided by it, is no day.
ROWS = 0.5
# Values are in another unit if the part of the distance that this leaves unexplained and the part of the range by which its
# ends are missed are together at most this.
UNEXPLAINED = 0.35
# value in the second unit = factor * value in the first + offset. Units that lie close together (knots and mph) or differ by
# an offset only are left out: that much the world does by itself.
UNITS: Sequence[tuple[str, str, float, float]] = (
    ("miles", "kilometres", 1.609344, 0),
    ("feet", "metres", 0.3048, 0),
    ("inches", "centimetres", 2.54, 0),
    ("pounds", "kilograms", 0.45359237, 0),
    ("gallons", "litres", 3.785411784, 0),
    ("°C", "°F", 1.8, 32),
    ("m/s", "mph", 2.2369363, 0),
    ("m/s", "knots", 1.9438445, 0),
    ("m/s", "km/h", 3.6, 0),
    ("inches of mercury", "hPa", 33.86389, 0),
    ("hours", "minutes", 60, 0),
    ("hours", "seconds", 3600, 0),
    ("units", "hundredths", 100, 0),
    ("units", "thousandths", 1000, 0),
)
# Fisher's z of a correlation of 1 is infinite.
CLOSEST = 0.999


@dataclass(frozen=True)
class Rules:
    """What counts as drift.

    Attributes:
        tolerance: a distance of no consequence; 0.01 is a shift of a tenth of a standard deviation.
        false_alarms: the chance of any alarm in one run if nothing changed, over all columns, pairs and horizons.
        min_rows: windows and baselines with fewer rows are not judged.
        min_windows: nor are columns with fewer past windows.
        baseline_days: how many days before a window it is compared with.
    """

    tolerance: float = 0.01
    false_alarms: float = 0.01
    min_rows: int = 200
    min_windows: int = 14
    baseline_days: int = 28


@dataclass(frozen=True)
class Comparison:
    """A column in one window beside the days before it.

    Attributes:
        horizon: days of the window.
        distance, limit: of the test that decided, whether there is a value or which: the one that is closer to its limit, or
            further above it. None where they cannot be told; above its limit the distance is an alarm.
        rows, baseline_rows: of the window and of the days that it is compared with.
        windows: past windows that the limit was made of.
        cell: the cell whose share changed most, in words, and its shares (0..1) in the baseline and in the window.
        shift: P(new > old) + P(equal) / 2 - 0.5 of a number, told from the cells: -0.5..0.5, above 0 when it grew.
        why: one sentence for a person.
    """

    column: str
    horizon: int
    state: State
    distance: float | None
    limit: float | None
    rows: int
    baseline_rows: int
    windows: int
    cell: str | None
    before: float | None
    after: float | None
    shift: float | None
    why: str


@dataclass(frozen=True)
class PairComparison:
    """How two columns go together, as a `Comparison`; `column` is "a × b", `before` and `after` are rank correlations, and
    the distance is the square of the change of Fisher's z."""

    column: str
    horizon: int
    state: State
    distance: float | None
    limit: float | None
    rows: int
    baseline_rows: int
    windows: int
    before: float | None
    after: float | None
    why: str


@dataclass(frozen=True)
class Fault:
    """A sign that data is broken, rather than the world changed. `column` is "*" for what is true of all."""

    column: str
    kind: Kind
    sentence: str


@dataclass(frozen=True)
class _Windows:
    """A window, the days before it, and its past windows beside the days before each: sums over the days of each."""

    current: Counts  # [k]
    baseline: Counts  # [k]
    past: Counts  # [K, k]
    past_baselines: Counts  # [K, k]
    present: int  # days of the window that have rows
    part: float  # the length of a past window, in windows


@dataclass(frozen=True)
class _Measured:
    """What a limit is made of: degrees of freedom, and distance and effective rows of a window and of its past windows."""

    cells: slice  # of the column that it is of
    rows: int  # of the window or the days before it, the fewer
    freedom: int
    distance: float
    effective: float
    past: npt.NDArray[np.float64]
    past_effective: npt.NDArray[np.float64]
    independent: float  # windows of the horizon that the past ones make: days of one week have their season in common


def compare(days: Mapping[date, Profile], day: date, rules: Rules) -> list[Comparison]:
    """Every column of the profiles in the windows that end with a day.

    Args:
        days: daily profiles counted in the same cells. A day may lack columns; days after `day` are ignored. 15 days are
            the least for a day to be judged, 57 for four weeks; up to a year, each further one makes better limits.
        day: the last day of the windows.
        rules: see `Rules`.

    Returns:
        One comparison per horizon and column, in this order. What cannot be judged is never "ok".

    Raises:
        DifferentCells: if the days were not counted in the same cells.
    """
    columns = _columns(days, day)
    found = []
    for horizon, share in HORIZONS.items():
        judged = [_measured_column(column, horizon, rules) for column in columns]
        tests = sum(len(parts) for _, parts in judged)
        chance = rules.false_alarms * (1 - PAIR_SHARE) * share / max(tests, 1)
        found += [
            _compared(column, horizon, windows, parts, chance, rules)
            for column, (windows, parts) in zip(columns, judged, strict=True)
        ]
    return found


def compare_pairs(days: Mapping[date, Mapping[str, PairSums]], day: date, rules: Rules) -> list[PairComparison]:
    """How pairs of columns go together in the week that ends with a day, beside the days before it.

    No column by itself shows that two columns went apart. The distance is the squared change of Fisher's z of the rank
    correlation: with N_eff = 1 / (1 / (n - 3) + 1 / (m - 3)), distance * N_eff is chi-squared with one degree of freedom if
    nothing changed, so the limit is that of a column with two cells.

    Args:
        days: per day "a × b" → [n, Σa, Σb, Σa², Σb², Σab] over the numbers of the cells (0, 1, …) of the rows where both
            have a value; such sums of parts add up. A day may lack pairs; days after `day` are ignored.
        day: the last day of the window.
        rules: see `Rules`.

    Returns:
        One comparison per pair, by name.
    """
    named = sorted({pair for at, sums in days.items() if at <= day for pair in sums})
    windows = {}
    for pair in named:
        sums = _by_day(
            {at: np.asarray(one[pair], dtype=np.float64) for at, one in days.items() if at <= day and pair in one}, day
        )
        windows[pair] = _windows(sums, _pair_rows, PAIR_HORIZON, rules)
    obstacles = {pair: _obstacle_of_pair(windows[pair], rules) for pair in named}
    judged = sum(obstacle is None for obstacle in obstacles.values())
    chance = rules.false_alarms * PAIR_SHARE / max(judged, 1)
    return [_compared_pair(pair, windows[pair], obstacles[pair], chance, rules) for pair in named]


def faults(
    days: Mapping[date, Profile],
    day: date,
    comparisons: Sequence[Comparison],
    reference: Profile | None = None,
    baseline_days: int = 28,
) -> list[Fault]:
    """Signs of broken data in the columns whose comparison of the day itself is an alarm, and in the number of rows.

    A storm also changes columns at once. What it does not do: leave a value out, make up a category, take one away that
    each day had, make all values equal, leave the range by more than its width, or multiply all values by a factor that
    two units have in common. Each is only a sign if no day of the baseline showed the same.

    Args:
        days: daily profiles, as for `compare`. Ranges are judged if they carry `low` and `high`.
        day: the day that is judged.
        comparisons: what `compare` said of it.
        reference: the profile of the training rows; what lies in its range is not out of range.
        baseline_days: the days before that are looked at.

    Returns:
        At most one fault per column, by name; that of the rows first.
    """
    before = [days[at] for past in range(1, baseline_days + 1) if (at := day - timedelta(days=past)) in days]
    found = [_rows_fault(days.get(day, {}), before)]
    for column in sorted({one.column for one in comparisons if one.horizon == 1 and one.state == "alarm"}):
        past = [profile[column] for profile in before if column in profile]
        if past := [cells for cells in past if any(all_counts(cells))]:
            found.append(_fault(column, days[day][column], past, (reference or {}).get(column)))
    return [fault for fault in found if fault]


def correlation(sums: PairSums | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Pearson's r of `PairSums` [..., 6]; NaN where one of both does not vary. Of ranks or cells, it is a rank correlation."""
    n, a, b, aa, bb, ab = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    spread = np.sqrt(np.maximum(n * aa - a * a, 0) * np.maximum(n * bb - b * b, 0))
    return np.divide(n * ab - a * b, spread, out=np.full_like(spread, np.nan), where=spread > 0)


@dataclass(frozen=True)
class _Column:
    """A column by day: cells of all days up to the last, a row each, and what the cells are."""

    name: str
    numeric: bool
    words: Sequence[str]
    counts: Counts  # [days, cells]

    @property
    def values(self) -> int:
        """How many of the cells hold values; the others are of rows without one."""
        return self.counts.shape[1] - (2 if self.numeric else 1)


def _columns(days: Mapping[date, Profile], day: date) -> list[_Column]:
    found = []
    for name in sorted({name for at, profile in days.items() if at <= day for name in profile}):
        cells = {at: profile[name] for at, profile in days.items() if at <= day and name in profile}
        first = next(iter(cells.values()))
        for other in cells.values():
            if any(other.get(key) != first.get(key) for key in ("kind", "edges", "values")):
                raise DifferentCells(f"{name}: the days were counted in different cells; count all with one reference")
        counts = _by_day({at: np.array(all_counts(one), dtype=np.float64) for at, one in cells.items()}, day)
        found.append(_Column(name, first["kind"] == "numeric", words(first), counts))
    return found


def _by_day(rows: Mapping[date, Counts], day: date) -> Counts:
    """One row per day of the calendar from the first to `day`; zeros for days that are not given."""
    first = min(rows)
    table = np.zeros(((day - first).days + 1, len(rows[first])))
    for at, row in rows.items():
        table[(at - first).days] = row
    return table


def _all_rows(counts: Counts) -> npt.NDArray[np.float64]:
    return counts.sum(axis=-1)


def _pair_rows(sums: Counts) -> npt.NDArray[np.float64]:
    return sums[..., 0]


def _windows(table: Counts, rows_of: Callable[[Counts], npt.NDArray[np.float64]], horizon: int, rules: Rules) -> _Windows:
    """The last `horizon` days of a table, and its past windows, or where these are too few, their parts.

    A distance is convex in the shares: that of a window is at most the mean of the distances of its parts to the same
    baseline. So weeks or days in place of four weeks make a limit that is higher than needed, never lower.
    """
    current, before = table[-horizon:], table[:-horizon]
    past = past_baselines = np.zeros((0, table.shape[1]))
    for length in sorted((length for length in HORIZONS if length <= horizon), reverse=True):
        past, past_baselines = _past(before, horizon, length, rules.baseline_days)
        enough = (rows_of(past) >= max(rules.min_rows * length / horizon, 1)) & (
            rows_of(past_baselines) >= max(rules.min_rows, 1)
        )
        past, past_baselines = past[enough], past_baselines[enough]
        if len(past) >= rules.min_windows:
            break
    return _Windows(
        current=current.sum(axis=0),
        baseline=before[-rules.baseline_days :].sum(axis=0),
        past=past,
        past_baselines=past_baselines,
        present=int((rows_of(current) > 0).sum()),
        part=length / horizon,
    )


def _past(table: Counts, horizon: int, length: int, baseline_days: int) -> tuple[Counts, Counts]:
    """The windows of `horizon` days that lie one after the other before now, in parts of `length` days, and the days that
    each part is compared with: those before its window, or for the earliest windows, which have too few before them, the
    other days of the first."""
    end = np.arange(len(table), length - 1, -length)
    start = len(table) - horizon * np.ceil((len(table) - end + length) / horizon).astype(int)
    first = np.maximum(start - baseline_days, 0)
    last = np.minimum(first + baseline_days + horizon, len(table))
    sums = np.vstack([np.zeros(table.shape[1]), table.cumsum(axis=0)])
    window = sums[start + horizon] - sums[np.maximum(start, 0)]
    return sums[end] - sums[end - length], sums[last] - sums[first] - window


def _obstacle_of_pair(windows: _Windows, rules: Rules) -> str | None:
    if obstacle := _too_little(windows, _pair_rows, PAIR_HORIZON, rules):
        return obstacle
    if np.isnan(correlation(windows.baseline)) or np.isnan(correlation(windows.current)):
        return "one of the columns has a single value, so nothing goes together with it"
    if windows.part < 1:
        # Within a day the weather hardly varies and the weekday does not at all: days do not tell what weeks do.
        return f"fewer than {rules.min_windows} past weeks, and days do not tell how two columns go together over a week"
    return _too_short(len(windows.past), rules) if len(windows.past) < rules.min_windows else None


def _too_little(
    windows: _Windows, rows_of: Callable[[Counts], npt.NDArray[np.float64]], horizon: int, rules: Rules
) -> str | None:
    rows, baseline_rows = int(rows_of(windows.current)), int(rows_of(windows.baseline))
    if rows == 0:
        return "no rows" if horizon == 1 else f"no rows in {horizon} days"
    if windows.present < horizon - math.floor(horizon * ABSENT):
        return f"only {windows.present} of the {horizon} days have rows"
    if rows < rules.min_rows:
        return f"{rows} rows are too few, {rules.min_rows} are needed"
    if baseline_rows < rules.min_rows:
        return f"{baseline_rows} rows in the {rules.baseline_days} days before are too few, {rules.min_rows} are needed"
    return None


def _too_short(past: int, rules: Rules) -> str:
    return f"{past} past windows with enough rows are too few, {rules.min_windows} are needed"


def _measured_column(column: _Column, horizon: int, rules: Rules) -> tuple[_Windows, list[_Measured]]:
    """The windows of a column and what can be judged of them: whether there are values, and which.

    Apart from each other, as each has a past of its own: of a temperature that is never missing, a few missing values are
    news, whereas the values themselves may go up and down.
    """
    windows = _windows(column.counts, _all_rows, horizon, rules)
    if _too_little(windows, _all_rows, horizon, rules) or not windows.baseline[: column.values].any():
        return windows, []
    parts = []
    if len(windows.past) >= rules.min_windows or _lost(column, windows):
        parts.append(_measured(windows, lambda counts: _presence(column, counts), slice(column.values, None), rules))
    valued = _measured(windows, lambda counts: counts[..., : column.values], slice(column.values), rules)
    if valued.rows >= rules.min_rows and len(valued.past) >= rules.min_windows:
        parts.append(valued)
    return windows, parts


def _presence(column: _Column, counts: Counts) -> Counts:
    return np.concatenate([counts[..., : column.values].sum(axis=-1, keepdims=True), counts[..., column.values :]], axis=-1)


def _lost(column: _Column, windows: _Windows) -> bool:
    """There is no value, where every past window had some."""
    valued = (windows.past[:, : column.values].sum(axis=-1) > 0).all()
    return bool(valued) and not windows.current[: column.values].any()


def _compared(
    column: _Column, horizon: int, windows: _Windows, parts: Sequence[_Measured], chance: float, rules: Rules
) -> Comparison:
    rows, baseline_rows = int(windows.current.sum()), int(windows.baseline.sum())
    obstacle = _too_little(windows, _all_rows, horizon, rules)
    if not parts:
        none = f"no value in the {rules.baseline_days} days before, so there is nothing to compare with"
        why = obstacle or (none if not windows.baseline[: column.values].any() else _too_short(len(windows.past), rules))
        nothing = (None, None, None, None)
        return Comparison(column.name, horizon, "cannot judge", None, None, rows, baseline_rows, len(windows.past), *nothing, why)
    lost = _lost(column, windows)
    limits = [_noise(chance, part, rules.tolerance) if lost else _limit(chance, part, rules.tolerance) for part in parts]
    part, limit = max(zip(parts, limits, strict=True), key=lambda one: one[0].distance / one[1])
    before, after = windows.baseline / baseline_rows, windows.current / rows
    largest = int(np.abs(after - before)[part.cells].argmax()) + (part.cells.start or 0)
    cell, share_before, share_after = column.words[largest], float(before[largest]), float(after[largest])
    window = "the day" if horizon == 1 else f"{horizon} days"
    change = f"{cell} in {_percent(share_after)} of the rows of {window}, {_percent(share_before)} in the days before"
    state, why = _verdict(part.distance, limit, change)
    if state == "ok" and len(parts) < 2:
        state = "cannot judge"
        values = int(windows.current[: column.values].sum())
        why = (
            f"{values} values are too few, {rules.min_rows} are needed"
            if values < rules.min_rows
            else f"too few past windows with values, {rules.min_windows} are needed"
        )
    return Comparison(
        column=column.name,
        horizon=horizon,
        state=state,
        distance=part.distance,
        limit=limit,
        rows=rows,
        baseline_rows=baseline_rows,
        windows=len(part.past),
        cell=cell,
        before=share_before,
        after=share_after,
        shift=_shift(windows.baseline[:-2], windows.current[:-2]) if column.numeric else None,
        why=why,
    )


def _compared_pair(pair: str, windows: _Windows, obstacle: str | None, chance: float, rules: Rules) -> PairComparison:
    rows, baseline_rows = (int(_pair_rows(sums)) for sums in (windows.current, windows.baseline))
    known = (rows, baseline_rows, len(windows.past))
    if obstacle is not None:
        return PairComparison(pair, PAIR_HORIZON, "cannot judge", None, None, *known, None, None, obstacle)
    limits = _measured_pair(windows)
    limit = _limit(chance, limits, rules.tolerance)
    before, after = float(correlation(windows.baseline)), float(correlation(windows.current))
    change = f"rank correlation {after:.2f} over {PAIR_HORIZON} days, {before:.2f} in the days before"
    state, why = _verdict(limits.distance, limit, change)
    return PairComparison(pair, PAIR_HORIZON, state, limits.distance, limit, *known, before, after, why)


def _verdict(distance: float, limit: float, change: str) -> tuple[State, str]:
    if distance > limit:
        return "alarm", f"{change}; distance {distance:.3g}, limit {limit:.3g}"
    return "ok", f"distance {distance:.3g}, within the limit {limit:.3g}"


def _measured(windows: _Windows, part: Callable[[Counts], Counts], cells: slice, rules: Rules) -> _Measured:
    current, baseline = part(windows.current), part(windows.baseline)
    past, past_baselines = part(windows.past), part(windows.past_baselines)
    enough = (past.sum(axis=-1) >= max(rules.min_rows * windows.part, 1)) & (
        past_baselines.sum(axis=-1) >= max(rules.min_rows, 1)
    )
    past, past_baselines = past[enough], past_baselines[enough]
    rows, baseline_rows = current.sum(), baseline.sum()
    return _Measured(
        cells=cells,
        rows=int(min(rows, baseline_rows)),
        freedom=max(int(((current + baseline) > 0).sum()) - 1, 1),
        distance=float(distances(current, baseline)) if rows and baseline_rows else 0.0,
        effective=float(_effective(rows, baseline_rows)) if rows and baseline_rows else 0.0,
        past=distances(past, past_baselines),
        past_effective=_effective(past.sum(axis=-1), past_baselines.sum(axis=-1)),
        independent=max(len(past) * windows.part, 1.0),
    )


def _measured_pair(windows: _Windows) -> _Measured:
    current, baseline, past, past_baselines = (
        np.arctanh(np.clip(correlation(sums), -CLOSEST, CLOSEST))
        for sums in (windows.current, windows.baseline, windows.past, windows.past_baselines)
    )
    known = ~np.isnan(past - past_baselines)
    past_rows, past_baseline_rows = windows.past[known, 0], windows.past_baselines[known, 0]
    return _Measured(
        cells=slice(None),
        rows=int(min(windows.current[0], windows.baseline[0])),
        freedom=1,
        distance=float((current - baseline) ** 2),
        effective=float(_effective(max(windows.current[0] - 3, 1), max(windows.baseline[0] - 3, 1))),
        past=((past - past_baselines) ** 2)[known],
        past_effective=_effective(np.maximum(past_rows - 3, 1), np.maximum(past_baseline_rows - 3, 1)),
        independent=max(len(past_rows) * windows.part, 1.0),
    )


def _effective(n: Any, m: Any) -> Any:
    """N_eff of two windows of n and m rows."""
    return n * m / (n + m)


def _limit(chance: float, limits: _Measured, tolerance: float) -> float:
    """The largest distance that tolerance, chance and the column's own past explain."""
    return max(_noise(chance, limits, tolerance), _history(chance, limits, tolerance))


def _noise(chance: float, limits: _Measured, tolerance: float) -> float:
    from scipy.special import chndtrix  # here, as it is slow to import

    return float(chndtrix(1 - chance, limits.freedom, limits.effective * tolerance)) / limits.effective


def _history(chance: float, limits: _Measured, tolerance: float) -> float:
    from scipy.special import fdtri

    windows, freedom = len(limits.past), limits.freedom
    if windows < 2:
        return 0.0
    past, noise = _without_outlier(limits.past), freedom / limits.past_effective
    mean, variance, excess = float(past.mean()), float(past.var(ddof=1)), float((past - noise).mean())
    # Mean and variance of a chi-squared variable, and their errors from so many windows.
    by_chance = 2 / freedom * float((noise**2).mean())
    higher = excess > PROVEN * math.sqrt(by_chance / windows)
    wilder = variance > by_chance * (1 + PROVEN * math.sqrt((2 + 12 / freedom) / windows))
    if not higher and not wilder:
        return 0.0
    expected = freedom / limits.effective + max(excess, 0.0)
    parts = min(max(mean**2 / variance, LEAST_PARTS), freedom) if variance else freedom
    return tolerance + expected * float(fdtri(parts, parts * limits.independent, 1 - chance))


def _without_outlier(past: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The largest counts no more than the next: one broken day must not hide what breaks in the weeks after it. More than one
    is how the column is."""
    return np.minimum(past, np.sort(past)[-2])


def _shift(old: Counts, new: Counts) -> float | None:
    """P(new > old) + P(equal) / 2 - 1/2 of two rows of counts in ordered cells."""
    if not old.sum() or not new.sum():
        return None
    old, new = old / old.sum(), new / new.sum()
    return float((new * (old.cumsum() - old / 2)).sum() - 0.5)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rows_fault(profile: Profile, before: Sequence[Profile]) -> Fault | None:
    today, past = _rows(profile), [_rows(one) for one in before]
    if not past or ROWS * min(past) <= today <= max(past) / ROWS:
        return None
    return Fault("*", "rows", f"{today} rows, where the {len(past)} days before had {min(past)} to {max(past)}")


def _rows(profile: Profile) -> int:
    return max((sum(all_counts(cells)) for cells in profile.values()), default=0)


def _fault(
    column: str, today: Mapping[str, Any], past: Sequence[Mapping[str, Any]], reference: Mapping[str, Any] | None
) -> Fault | None:
    """The first sign that a column shows, the plainest ones first."""
    signs: list[tuple[Kind, str | None]] = [("missing", _missing(today, past)), ("constant", _constant(today, past))]
    if today["kind"] == "categorical":
        signs += [("new values", _new_values(today, past)), ("vanished", _vanished(today, past))]
    else:
        signs += [("scale", _scale(today, past)), ("range", _range(today, past, reference))]
    return next((Fault(column, kind, f"{column}: {sentence}") for kind, sentence in signs if sentence), None)


def _missing(today: Mapping[str, Any], past: Sequence[Mapping[str, Any]]) -> str | None:
    for key, name in (("missing", "missing"), ("not_finite", "not finite")):
        share, shares = _share(today, key), [_share(one, key) for one in past]
        if share - max(shares) >= MISSING:
            return f"{_percent(share)} are {name}, at most {_percent(max(shares))} on a day before"
    return None


def _constant(today: Mapping[str, Any], past: Sequence[Mapping[str, Any]]) -> str | None:
    if not _is_constant(today) or any(_is_constant(one) for one in past):
        return None
    cell = words(today)[int(np.argmax(today["counts"]))]
    return f"all values are equal ({cell})" if "low" in today or today["kind"] == "categorical" else f"all values are {cell}"


def _is_constant(cells: Mapping[str, Any]) -> bool:
    if cells.get("low") is not None:
        return bool(cells["low"] == cells["high"])
    return sum(count > 0 for count in cells["counts"]) == 1 and not cells.get("other")


def _new_values(today: Mapping[str, Any], past: Sequence[Mapping[str, Any]]) -> str | None:
    share, most = _share(today, "other"), max(_share(one, "other") for one in past)
    if share - most < SHARE:
        return None
    return f"{_percent(share)} have values that are not among the known ones, at most {_percent(most)} on a day before"


def _vanished(today: Mapping[str, Any], past: Sequence[Mapping[str, Any]]) -> str | None:
    counts = np.array([one["counts"] for one in past])
    rows = sum(sum(all_counts(one)) for one in past)
    shares = counts.sum(axis=0) / rows
    expected = shares * sum(all_counts(today))
    gone = (np.array(today["counts"]) == 0) & (shares >= SHARE) & (expected >= EXPECTED) & (counts > 0).all(axis=0)
    named = [f"{today['values'][cell]!r} ({_percent(float(shares[cell]))})" for cell in np.flatnonzero(gone)]
    return f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'} gone" if named else None


def _range(today: Mapping[str, Any], past: Sequence[Mapping[str, Any]], reference: Mapping[str, Any] | None) -> str | None:
    known = [*past, reference] if reference and reference.get("low") is not None else past
    if today.get("low") is None or any("low" not in one for one in known):
        return None
    low = min(one["low"] for one in known if one["low"] is not None)
    high = max(one["high"] for one in known if one["high"] is not None)
    before = np.sum([one["counts"] for one in past], axis=0)
    grown = np.array(today["counts"]) / sum(today["counts"]) - before / before.sum()
    if (today["high"] > high + (high - low) and grown[-1] >= SHARE) or (today["low"] < low - (high - low) and grown[0] >= SHARE):
        return f"values from {today['low']:.4g} to {today['high']:.4g}, before from {low:.4g} to {high:.4g}"
    return None


def _scale(today: Mapping[str, Any], past: Sequence[Mapping[str, Any]]) -> str | None:
    """Is the distribution that of the days before in another unit? Its cumulative distribution is taken to be linear between
    the edges of the cells, of positive numbers in their logarithm (they often have a long tail), which predicts the shares
    of the cells in the other unit."""
    edges, counts = np.array(today["edges"]), np.array(today["counts"], dtype=np.float64)
    before = np.sum([one["counts"] for one in past], axis=0).astype(np.float64)
    ranged = [one for one in (today, *past) if one.get("low") is not None]
    if not len(edges) or not counts.sum() or not before.sum() or today.get("low") is None or len(ranged) < 2:
        return None
    lows, highs = (np.array([one[key] for one in ranged[1:]]) for key in ("low", "high"))
    points = np.array([min(lows.min(), edges[0]), *edges, max(highs.max(), edges[-1])])
    cumulative = np.array([0.0, *before.cumsum()]) / before.sum()
    scale = _logarithm if points[0] > 0 else np.asarray
    apart = float(distances(counts, before))
    # That of other days, but for one that may have been broken itself: a column that does so often has no unit.
    usual = sorted(float(distances(np.array(one["counts"]), before)) for one in past if any(one["counts"]))[:-1]
    if usual and apart <= usual[-1]:
        return None
    width = max(today["high"] - today["low"], 1e-300)
    best: tuple[float, str] | None = None
    for one, other, factor, offset in _conversions():
        shares = np.diff([0.0, *np.interp(scale((edges - offset) / factor), scale(points), cumulative), 1.0])
        unexplained = float(distances(counts, shares * before.sum()))
        # A day reaches as far as one of the days before did.
        misfit = max(_outside(today["low"], factor * lows + offset), _outside(today["high"], factor * highs + offset)) / width
        left = unexplained / apart + misfit
        if left <= UNEXPLAINED and (best is None or left < best[0]):
            best = (
                left,
                f"values are as before times about {factor:.4g}"
                + (f" plus {offset:.4g}" if offset else "")
                + (f", as if {one} had become {other}"),
            )
    return best[1] if best else None


def _outside(value: float, others: npt.NDArray[np.float64]) -> float:
    return float(max(others.min() - value, value - others.max(), 0.0))


def _logarithm(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.log(np.maximum(values, np.finfo(np.float64).tiny))


def _conversions() -> Iterator[tuple[str, str, float, float]]:
    for one, other, factor, offset in UNITS:
        yield one, other, factor, offset
        yield other, one, 1 / factor, -offset / factor


def _share(cells: Mapping[str, Any], key: str) -> float:
    rows = sum(all_counts(cells))
    return float(cells.get(key, 0) / rows) if rows else 0.0
