"""The pages about monitoring, as people read them: every outcome says what it must, and nothing that was not measured."""

from __future__ import annotations

import copy
import math
import re
from datetime import date
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.core import profile
from include.monitoring_page import OUTCOMES, render, render_index
from tests.pages import monitoring_documents as documents
from tests.pages.test_evaluation_page import HOSTILE, Page, nodes, replaced

BUILT = {
    "fine": documents.fine_day(),
    "drift": documents.drift_alarm(),
    "broken": documents.broken_data(),
    "unjudged": documents.no_labels_yet(),
    "nothing": documents.nothing(),
    "absent": {},
    "wide": documents.many_columns(),
}
SECTIONS = ["faults", "changes", "distributions", "score", "quality", "slices", "missing", "proxies", "facts"]


def page(document: dict[str, Any] | None = None, **changed: Any) -> Page:
    return Page(render("Flight delays", {**(BUILT["fine"] if document is None else document), **changed}))


def index(entries: list[dict[str, Any]]) -> Page:
    return Page(render_index("Flight delays", entries))


def verdict_of(shown: Page) -> str:
    (found,) = re.findall(r"<section.*?</section>", shown.html, re.DOTALL)
    return Page(found).text


def verdict(outcome: str, **changed: Any) -> dict[str, Any]:
    return {**documents.nothing()["verdict"], "outcome": outcome, **changed}


def compared(column: str | None = "temp", horizon: int = 1, **changed: Any) -> dict[str, Any]:
    told = {"state": "ok", "distance": 0.03, "limit": 0.06, "rows": 912, "baseline_rows": 25_340, "windows": 28}
    change = {"cell": "above 30", "before": 0.1, "after": 0.2, "shift": 0.21, "why": "distance 0.03 is within the limit 0.06"}
    return {"column": column, "horizon": horizon, **told, **change, **changed}


def cells(shown: Page) -> list[tuple[str, str]]:
    """Class and text of the cells of all heat maps, in order."""
    found = re.findall(r'<td class="cell (\w+)".*?>(.*?)</td>', shown.html)
    return [(kind, Page(f"<p>{text}</p>").text) for kind, text in found]


def chart_of(shown: Page, name: str) -> ElementTree.Element:
    (found,) = [svg for svg in shown.pictures if (svg.get("aria-label") or "").startswith(name)]
    return found


def rows_of(chart: ElementTree.Element) -> list[str]:
    return [group.findtext("title") or "" for group in chart.iter("g")]


@pytest.fixture(params=[*BUILT, "index", "no runs"])
def variant(request: pytest.FixtureRequest) -> Page:
    if request.param in BUILT:
        return page(BUILT[request.param]) if request.param != "absent" else Page(render("Flight delays", {}))
    return index(documents.entries() if request.param == "index" else [])


def test_every_variant_is_whole_and_loads_nothing(variant: Page) -> None:
    assert variant.html.startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "img", "object", "form", "base"} & set(variant.tags)
    for _, name, value in variant.attributes:
        assert not name.startswith("on") and name != "src"
        assert name != "href" or re.match(r"#|\.\./|2013-", value or "")
    assert "://" not in variant.html and "@import" not in variant.html and "url(" not in variant.html
    assert "viewport" in variant.html and "prefers-color-scheme: dark" in variant.html and "@media print" in variant.html


def test_every_variant_says_nothing_that_is_no_number(variant: Page) -> None:
    assert not re.search(r"\b(None|nan|NaN|inf|null|undefined|Markup)\b", variant.html)


def test_every_picture_is_well_formed_and_has_words(variant: Page) -> None:
    for svg in variant.pictures:
        words = svg.get("role") == "img" and svg.get("aria-label") and svg.findtext("title")
        assert words or svg.get("aria-hidden") == "true"
        for element in svg.iter():
            for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height"):
                assert math.isfinite(float(element.get(name, "0")))
            assert float(element.get("width", "0")) >= 0


@pytest.mark.parametrize("name", BUILT)
def test_the_sections_are_always_there_and_in_the_contents(name: str) -> None:
    shown = Page(render("Flight delays", BUILT[name]))
    assert re.findall(r'<h2 id="(\w+)">', shown.html) == SECTIONS
    links = [value for tag, key, value in shown.attributes if (tag, key) == ("a", "href") and str(value).startswith("#")]
    assert links == [f"#{section}" for section in SECTIONS]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fine", ["✔ OK", "No alarm", "What follows: nothing."]),
        ("drift", ["▲ Covariate drift", "It is windier than in the four weeks before", "labels are requested"]),
        ("drift", ["It began on 2013-06-29.", "It was told before and has not grown."]),
        ("broken", ["✕ Broken data", "62 % of the rows have no value", "degrees Fahrenheit", "It began on this day."]),
        ("unjudged", ["? Cannot judge", "does not say that all is well", "Labels of this day are expected by 2013-07-08."]),
        ("nothing", ["? Cannot judge", "What follows: nothing."]),
        ("absent", ["? Cannot judge"]),
    ],
)
def test_the_verdict_comes_first_and_in_words(name: str, said: list[str]) -> None:
    shown = Page(render("Flight delays", BUILT[name]))
    told = verdict_of(shown)
    for words in said:
        assert words in told
    assert shown.text.index(told[:15]) < shown.text.index("Faults in the data")


def test_outcomes_differ_by_sign_and_by_more_than_the_colour_of_the_box() -> None:
    assert (
        len({sign for sign, *_ in OUTCOMES.values()}) == len({picture for _, picture, *_ in OUTCOMES.values()}) == len(OUTCOMES)
    )
    boxes = {name: page(verdict=verdict(name)) for name in OUTCOMES}
    for name, (sign, *_) in OUTCOMES.items():
        assert verdict_of(boxes[name]).lower().startswith(f"{sign} {name}")
    style = boxes["ok"].html
    assert (
        ".ok { --tone: var(--good); border-left-style: solid" in style
        and ".unjudged { --tone: var(--warn); border-left-style: dotted"
    )
    kinds = {name: re.findall(r'<section class="verdict (\w+)"', shown.html)[0] for name, shown in boxes.items()}
    assert kinds["cannot judge"] != kinds["ok"] and len(set(kinds.values())) == len(OUTCOMES)


def test_an_outcome_that_nobody_knows_is_not_a_good_one() -> None:
    told = verdict_of(page(verdict=verdict("splendid")))
    assert told.startswith("? Cannot judge") and "not known here: splendid." in told and "No alarm" not in told


def test_a_verdict_that_goes_on_is_no_alarm_when_all_is_well() -> None:
    told = verdict_of(page(verdict=verdict("ok", since="2013-06-01")))
    assert "So it has been since 2013-06-01." in told and "began" not in told
    assert "since" not in verdict_of(page(verdict=verdict("ok", since="2013-07-01")))


def test_many_alarms_are_folded_away_after_the_first_ten() -> None:
    shown = page(verdict=verdict("covariate drift", sentences=[f"alarm number {n}." for n in range(25)]))
    told = verdict_of(shown)
    assert "alarm number 9. 15 more alarm number 10." in told and "alarm number 24." in told
    assert re.search(r"alarm number 9\..*<details><summary>15 more", shown.html, re.DOTALL)


def test_actions_are_told_in_words_and_unknown_ones_as_they_are() -> None:
    told = verdict_of(page(verdict=verdict("quality decay", actions=["mail", "request training", "a cake is baked"])))
    assert "What follows: a mail to those who look after the model; a training is requested; a cake is baked." in told


def test_faults_are_listed_or_said_to_be_none() -> None:
    faults = page(BUILT["broken"]).section("faults")
    assert "✕ missing values wind_speed 62 % of the rows" in faults and "✕ another unit temp The values fit" in faults
    assert "No fault was found." in page().section("faults")


def test_a_cell_has_its_ratio_its_figures_and_a_mark_besides_its_tone() -> None:
    shown = page(
        comparisons=[
            compared("temp", 1),
            compared("temp", 7, state="alarm", distance=0.15),
            compared("temp", 28, state="cannot judge", distance=None, limit=None, rows=50, why="50 rows are too few"),
            compared("wind", 1, state="cannot judge", distance=0.012, limit=0.06),
            compared("wind", 28, distance=0.0000004),
        ],
        pairs=[],
    )
    assert cells(shown) == [
        ("tone", "0.50 0.030 of 0.060"),
        ("alarm", "▲ 2.50 0.15 of 0.060"),
        ("unjudged", "? cannot judge 50 rows"),
        ("unjudged", "? 0.20 0.012 of 0.060"),
        ("none", "–"),
        ("tone", "0.00 <0.0001 of 0.060"),
    ]
    assert re.search(r"\.cell\.alarm[^}]*border: 3px solid", shown.html)
    assert re.search(r"\.cell\.unjudged[^}]*repeating-linear-gradient[^}]*dotted", shown.html)
    assert "1 of 2 with an alarm. 1 day: 912 rows against 25,340; 7 days: 912 rows" in shown.section("changes")
    assert "28 days: 50 rows are too few" in shown.section("changes")


def test_alarms_come_first_then_what_is_furthest_from_its_baseline() -> None:
    shown = page(
        comparisons=[
            compared("near", 1, distance=0.001),
            compared("far", 1, distance=0.059),
            compared("alarmed", 1, state="alarm", distance=0.07),
            compared("far", 7, distance=0.002),
            compared("unknown", 1, state="cannot judge", distance=None),
        ],
        pairs=[],
    )
    assert re.findall(r'<th scope="row">(\w+)</th><td class="cell', shown.html) == ["alarmed", "far", "near", "unknown"]


def test_what_changed_is_told_in_words_and_rows_where_they_are_other() -> None:
    comparisons = [compared("temp", 1), compared("wind", 1, shift=-0.3, rows=400), compared("carrier", 1, shift=None)]
    changes = page(comparisons=comparisons).section("changes")
    assert "temp 0.50 0.030 of 0.060 above 30: 10.0 % → 20.0 %, values grew (+0.21) (1 day)" in changes
    assert "above 30: 10.0 % → 20.0 %, values fell (−0.30) (1 day, 400 rows against 25,340)" in changes
    assert "carrier 0.50 0.030 of 0.060 above 30: 10.0 % → 20.0 % (1 day)" in changes


def test_a_reason_that_all_columns_share_is_told_once() -> None:
    changes = page(BUILT["unjudged"]).section("changes")
    assert "10 cannot be judged" in changes
    assert "All of them, 1, 7 and 28 days: 2 past windows with enough rows are too few, 14 are needed." in changes
    assert changes.count("14 are needed") == 2  # of the features, and of the score and the decision


def test_the_model_and_pairs_are_apart_from_the_features() -> None:
    changes = page(BUILT["drift"]).section("changes")
    features, rest = changes.split("What the model says")
    model, pairs = rest.split("Pairs of features")
    assert "wind_speed" in features and " score " not in features and " decision " not in features
    assert " score ▲" in model and " decision " in model and "wind_speed" not in model
    assert "wind_speed × visibility ▲ 1.70 0.070 of 0.041 rank correlation −0.31 → 0.22 (7 days)" in pairs
    assert pairs.count("7 days") >= 1 and "28 days" not in pairs


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"comparisons": [], "pairs": []}, "Nothing was compared with the days before"),
        ({"comparisons": [compared("score")]}, "No feature was compared with the days before."),
        ({"comparisons": [compared("temp")], "pairs": []}, "Neither score nor decision was compared"),
        ({"comparisons": [compared("temp")], "pairs": []}, "No pair of features was compared."),
    ],
)
def test_what_was_not_compared_is_said(changed: dict[str, Any], said: str) -> None:
    assert said in page(**changed).section("changes")


def test_the_power_of_the_sample_is_told_in_standard_deviations() -> None:
    limits: dict[int, list[float | None]] = {1: [0.1225, 0.09, 0.16], 7: [0.04, 0.04, 0.04], 28: [0.01, 0.01, None]}
    comparisons = [compared(f"f{n}", horizon, limit=each) for horizon, found in limits.items() for n, each in enumerate(found)]
    changes = page(comparisons=comparisons).section("changes")
    assert (
        "With 912 rows a day, a shift of the mean of a typical feature by 0.35 standard deviations would be seen in a day, by "
        "0.20 in a week, by 0.10 in four weeks (0.30 to 0.40 in a day, by feature)." in changes
    )
    assert "How small a shift would be seen cannot be said" in page(comparisons=[compared(limit=None)]).section("changes")


def test_a_hundred_columns_with_long_names_are_folded_and_alarms_are_not() -> None:
    shown = page(BUILT["wide"])
    before, folded = shown.html.split("88 more, nearer to their baseline")
    assert before.count('class="cell alarm"') == 10 and 'class="cell alarm"' not in folded
    assert shown.html.count('<td class="cell ') == 300 + 2
    assert "63 more columns with missing values" in shown.section("missing")
    assert all(len(label) < 200 for svg in shown.pictures if (label := svg.get("aria-label")))


def test_distributions_show_alarms_first_and_shares_of_three() -> None:
    shown = page(BUILT["drift"])
    names = [Page(f"<p>{name}</p>").text for name in re.findall(r"<h3>([^<]*(?:<span.*?</span>)?)</h3>", shown.html)]
    distributions = shown.section("distributions")
    assert "wind_speed ▲ alarm" in names and distributions.index("wind_speed ▲ alarm") < distributions.index("distance")
    assert distributions.count("912 rows of the day, 25,340 rows of the days before, 60,000 rows of the training.") == 6
    assert "Least to largest: " in distributions
    chart = chart_of(shown, "wind_speed: shares")
    kinds = [element.get("class") for element in chart.iter()]
    rows = len(rows_of(chart))
    assert kinds.count("s0 bar") == kinds.count("s1 bar") == kinds.count("s2 hollow dot") == rows == 11
    assert (
        "the day (solid)" in distributions
        and "the days before (hollow)" in distributions
        and "the training (dot)" in distributions
    )


def test_a_bar_is_a_share_and_not_a_density() -> None:
    told = {"kind": "numeric", "edges": [1.0, 1000.0], "missing": 0, "not_finite": 0}
    document = BUILT["nothing"] | {
        "baseline": {"size": told | {"counts": [50, 50, 0]}},
        "current": {"size": told | {"counts": [10, 30, 0]}},
    }
    chart = chart_of(page(document), "size: shares")
    assert rows_of(chart) == [
        "up to 1: 25.0 % of the day, 50.0 % before, – in training",
        "1 to 1,000: 75.0 % of the day, 50.0 % before, – in training",
    ]
    small, large = [float(each.get("width", "")) for each in chart.iter("rect") if each.get("class") == "s0 bar"]
    assert large == pytest.approx(3 * small, rel=0.01)
    assert "No comparable rows of the training." in page(document).section("distributions")


def test_cells_have_the_meaning_that_the_profile_gives_them() -> None:
    values = np.array([0.0] * 60 + [3.25] * 15 + list(range(4, 29)), dtype=float)
    batch = pa.RecordBatch.from_pydict({"rain": pa.array([*values, None])})
    counted = profile.reference(batch, ["rain"], [])
    document = BUILT["nothing"] | {"current": counted, "baseline": counted}
    shown = {row.split(":")[0]: row for row in rows_of(chart_of(page(document), "rain: shares"))}
    kept = [
        words for words, rows in zip(profile.words(counted["rain"]), profile.all_counts(counted["rain"]), strict=True) if rows
    ]
    assert len(shown) == len(kept) and kept[0] == "exactly 0" and "exactly 0" in shown and "missing" in shown
    assert "59.4 % of the day" in shown["exactly 0"]


def test_a_cell_before_a_single_value_is_below_it() -> None:
    batch = pa.RecordBatch.from_pydict({"change": pa.array([-2.0, -1.5, *[0.0] * 60, *[2.5] * 30, 4.0, 5.0])})
    counted = profile.reference(batch, ["change"], [])
    rows = [row.split(":")[0] for row in rows_of(chart_of(page(BUILT["nothing"] | {"current": counted}), "change: shares"))]
    assert rows == ["below 0", "exactly 0", "exactly 2.5", "above 2.5"]


def test_what_is_no_number_is_not_told_even_where_words_stand() -> None:
    shown = page(model_version=math.nan, publication=math.inf, partition=None, comparisons=[compared(column=None)])
    assert (
        "Model version –." in shown.text
        and "Feature 1 day What changed most – 0.50" in shown.section("changes")
        and "Publication –" in shown.section("facts")
    )


def test_values_that_changed_are_shown_and_the_rest_summed() -> None:
    names = [f"v{n:02}" for n in range(20)]
    told = {"kind": "categorical", "values": names, "other": 10, "missing": 5}
    before, after = [100 - n for n in range(20)], [100 - n for n in range(20)]
    after[17] = 300
    document = BUILT["nothing"] | {"baseline": {"c": told | {"counts": before}}, "current": {"c": told | {"counts": after}}}
    rows = [row.split(":")[0] for row in rows_of(chart_of(page(document), "c: shares"))]
    assert len(rows) == 8 + 2 and rows[-2:] == ["other values", "missing"] and "v17" in rows and "v00" in rows


def test_profiles_in_other_cells_are_not_drawn_beside_each_other() -> None:
    told = {"kind": "numeric", "missing": 0, "not_finite": 0}
    document = BUILT["nothing"] | {
        "reference": {"size": told | {"edges": [2.0], "counts": [5, 5]}},
        "current": {"size": told | {"edges": [1.0], "counts": [1, 3]}},
    }
    assert "4 rows of the day. No comparable rows of the days before. No comparable rows of the training." in page(document).text


def test_the_score_and_labels_are_apart() -> None:
    score = page().section("score")
    assert (
        "Score" in score
        and "Decision" in score
        and "mean label (solid)" in score
        and "mean score of the same rows (dashed)" in score
    )
    assert re.search(r"[\d,]+ labelled rows of 2013-06-03 to 2013-06-30\.", score)
    assert "no labels have come yet" in page(BUILT["unjudged"]).section("score")
    assert "The distribution of the score is not known." in page(BUILT["nothing"]).section("score")


def test_quality_shows_what_was_known_then_as_hollow_dots_and_versions_as_lines() -> None:
    shown = page()
    quality = shown.section("quality")
    chart = chart_of(shown, "Log loss by day against the model's own expectation, 2013-04-04 to")
    kinds = [element.get("class") for element in chart.iter()]
    assert kinds.count("s2 hollow dot") == 87 and kinds.count("event") == 3
    assert kinds.count("s0 trace") == 2 and kinds.count("s1 trace") == 1  # a day without labels leaves a gap
    words = [text.text for text in chart.iter("text")]
    assert [word for word in words if word and re.search("version|back", word)] == ["version 2", "back to 1", "version 2"]
    for said in ("as known now (solid)", "expected by the model (dashed)", "as known when the day was first judged (hollow dot)"):
        assert said in quality
    assert "✔ as expected : Over 7 days the log loss is 0.52, 0.50 were expected." in quality
    assert "Last 7 days 7 with labels 6,000 95.0 % 0.5200 0.5000 +0.020 [−0.010, +0.050] 0.060 ✔ as expected" in quality
    assert "Against the champion before (version 1), on the same rows of 9 days: Version 2 does better" in quality
    assert "−0.0120 [−0.0200, −0.0040]" in quality


def test_a_narrow_screen_gets_the_last_four_weeks() -> None:
    shown = page()
    narrow = chart_of(shown, "Log loss by day against the model's own expectation, the last 28 days")
    assert sum(element.get("class") == "s2 hollow dot" for element in narrow.iter()) == 28
    assert "div.wide { display: none; } .narrow { display: block; }" in shown.html


def test_quality_that_has_decayed_or_cannot_be_judged_does_not_look_well() -> None:
    quality = BUILT["fine"]["quality"]
    decayed = page(quality=quality | {"state": "decay", "sentence": "It is worse."}).section("quality")
    assert "▽ worse than expected : It is worse." in decayed
    told = page(BUILT["unjudged"]).section("quality")
    assert "? cannot judge : No labels have come yet." in told and "There is no quality by day" in told and "No window" in told


def test_a_day_of_two_versions_is_drawn_once() -> None:
    day = {"partition": "2013-06-01", "rows": 900, "expected": 0.5}
    days = [
        day | {"model_version": "1", "labelled": 800, "loss": 0.4},
        day | {"model_version": "2", "labelled": 100, "loss": 0.9},
        day | {"partition": "2013-06-02", "model_version": "2", "labelled": 900, "loss": 0.5},
    ]
    shown = page(quality=documents.nothing()["quality"] | {"days": days})
    (trace,) = [each for each in chart_of(shown, "Log loss by day against the model's own expectation, 2013").iter()
                if each.get("class") == "s0 trace"]  # fmt: skip
    (_, first), (_, second) = (map(float, pair.split(",")) for pair in trace.attrib["points"].split())
    assert second < first  # upwards: the loss of the version with the most labels was 0.4
    assert "2013-06-01 1 900 800" in shown.section("quality") and "2013-06-01 2 900 100" in shown.section("quality")


def test_slices_have_their_rows_and_the_worst_comes_first() -> None:
    rows = [("EWR", 2000, 0.5, 0.49), ("JFK", 31, 0.6, 0.49), ("LGA", None, None, None)]
    slices = [dict(zip(("value", "labelled", "loss", "expected"), row, strict=True), slice="origin") for row in rows]
    told = page(quality=BUILT["fine"]["quality"] | {"slices": slices}).section("slices")
    assert "origin JFK 31 0.6000 0.4900 +0.1100 EWR 2,000 0.5000 0.4900 +0.0100 LGA – – – –" in told
    assert "There are none: no labels have come yet" in page(BUILT["unjudged"]).section("slices")


def test_missing_values_of_columns_that_have_some() -> None:
    days = [{"partition": f"2013-06-{n:02}", "shares": {"temp": 0.0, "wind": 0.01 * (n == 5), "snow": 0.02}} for n in range(3, 6)]
    days[1]["shares"] = {"temp": 0.0, "wind": None, "snow": 0.02}
    shown = page(missing=days)
    told = shown.section("missing")
    assert "at most 1.0 % 1.0 % 0.0 % 1.0 % snow" in told and "at most 2.0 % 2.0 % 2.0 % 2.0 %" in told and "temp" not in told
    assert "2013-06-03 to 2013-06-05" in told and "The other 1 of 3 columns had a value in every row." in told
    strip = chart_of(shown, "wind: missing values by day, at most 1.0 %")
    assert [each.get("class") for each in strip.iter()].count("gap") == 2  # a cross
    none = page(missing=[{"partition": "2013-06-03", "shares": {"a": 0, "b": 0.0}}]).section("missing")
    assert "There are no missing values: all 2 columns had a value in every row of 1 day." in none
    assert "no day was profiled" in page(missing=[]).section("missing")


def test_proxies_need_no_labels() -> None:
    told = page(BUILT["unjudged"]).section("proxies")
    for title in ("Mean score", "Share of positive decisions", "Confidence", "Rows"):
        assert title in told
    without = [each | {"score_mean": None} for each in BUILT["fine"]["proxies"]]
    assert not [svg for svg in page(proxies=without).pictures if (svg.get("aria-label") or "").startswith("Mean score by")]
    assert "No predictions of these days were found." in page(proxies=[]).section("proxies")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rows": 912, "population": 912, "sample": 1.0}, "All 912 published rows were looked at."),
        ({"rows": 611, "population": 6110, "sample": 0.1}, "611 of the 6,110 published rows were looked at, a sample of 10.0 %."),
        ({"rows": 0, "population": 0}, "No row was published."),
        ({"rows": 5, "population": None}, "5 rows were looked at."),
        ({"rows": None}, "It is not known how many rows were looked at."),
    ],
)
def test_the_sample_is_told(changed: dict[str, Any], said: str) -> None:
    assert said in page(**changed).text


def test_facts_are_complete() -> None:
    facts = page(BUILT["broken"]).section("facts")
    for fact in (
        *("Partition 2013-07-01", "Publication 2", "Model version 2", "Kind of run scheduled", "Rows published 6,110"),
        *("Rows looked at 611 (sample: 10.0 %)", "DAG monitoring", "Run scheduled__2013-07-01T05:00:00+00:00", "762f6bf0c1de"),
        *("Checks of the features", "Checks of the predictions", "Evaluation of version 2"),
    ):
        assert fact in facts


@pytest.mark.parametrize("href", ["../../a/b.html", "/reports/a.html", "page.html", "https://host.example/a?b=c#d", "#facts"])
def test_links_are_followed(href: str) -> None:
    assert ("a", "href", href) in page(links=[{"text": "There", "href": href}]).attributes


@pytest.mark.parametrize(
    "href",
    [
        "javascript:alert(1)",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,x",
        "//host.example/a",
        "s3://b/k",
        "",
    ],
)
def test_addresses_that_are_no_page_are_text(href: str) -> None:
    shown = page(links=[{"text": "There", "href": href}])
    followed = [value for tag, name, value in shown.attributes if (tag, name) == ("a", "href") and not str(value).startswith("#")]
    assert followed == [] and "There: " in shown.section("facts")


def test_the_index_lists_runs_newest_first_with_sign_and_link() -> None:
    shown = index(documents.entries(60)[::-1])
    runs = re.findall(r'<tr><th scope="row"><a href="(.*?)">(.*?)</a>', shown.html)
    assert [day for _, day in runs] == sorted((day for _, day in runs), reverse=True) and len(runs) == 58
    assert runs[0] == ("2013-07-01/v00001/report.html", "2013-07-01")
    assert "2013-07-01 broken data 62 % of wind_speed is missing. 900 2" in shown.section("runs")
    assert "2013-06-30 publication 2 covariate drift" in shown.section("runs")
    assert "27 older runs" in shown.section("runs")
    assert verdict_of(shown) == "✕ broken data on 2013-07-01: 62 % of wind_speed is missing."


def test_the_calendar_shows_a_sign_for_each_day_and_days_without_a_run() -> None:
    shown = index(documents.entries(60))
    (calendar,) = [svg for svg in shown.pictures if (svg.get("aria-label") or "").startswith("Outcome of each day")]
    assert calendar.get("aria-label") == "Outcome of each day from 2013-05-03 to 2013-07-01: 11 of 58 days with an alarm"
    told = dict((words or "").split(": ", 1) for words in rows_of(calendar))
    assert told["2013-07-01"] == "broken data" and told["2013-06-11"] == "no run" and told["2013-06-20"] == "ok"
    signs = {each.get("class") for each in calendar.iter() if "sign" in (each.get("class") or "")}
    assert signs == {"good open sign", "bad open sign", "warn full sign", "bad full sign", "warn sign"}
    for said in ("cannot judge (19)", "broken data (1)", "covariate drift (4)", "empty: no run"):
        assert said in shown.section("calendar")


def test_the_newest_publication_stands_for_its_day() -> None:
    entry = {"partition": "2013-06-03", "sentence": "", "rows": None, "model_version": "2"}
    shown = index([entry | {"outcome": "broken data", "publication": 1}, entry | {"outcome": "ok", "publication": 2}])
    (calendar,) = [svg for svg in shown.pictures if (svg.get("aria-label") or "").startswith("Outcome of each day")]
    assert "2013-06-03: ok" in rows_of(calendar)
    assert "2013-06-03 publication 2 ok – 2 2013-06-03 broken data – 2" in shown.section("runs")


def test_an_index_without_rows_has_no_column_of_them_and_tells_other_kinds_of_runs() -> None:
    entry = {"partition": "2013-06-03", "outcome": "ok", "sentence": "Fine.", "model_version": "2", "origin": "backfill"}
    shown = index([entry])
    assert "Rows" not in shown.text and "2013-06-03 backfill ok Fine. 2" in shown.section("runs")


@pytest.mark.parametrize(
    "href", ["../../secret.html", "/etc/passwd", "javascript:alert(1)", "a/../../b.html", "//host/a.html", None, ""]
)
def test_an_index_links_only_below_itself(href: str | None) -> None:
    shown = index([{"partition": "2013-06-03", "outcome": "ok", "sentence": "Fine.", "href": href}])
    assert "a" not in shown.tags and "2013-06-03" in shown.text


def test_an_index_of_nothing_says_so_and_one_of_odd_entries_does_not_fail() -> None:
    assert "There is no run yet." in index([]).text
    shown = index([{"partition": None, "outcome": None}, {"partition": "yesterday", "outcome": "splendid", "rows": math.nan}, {}])
    assert "No run names a day." in shown.text and "yesterday ? splendid – –" in shown.text


def poisoned(node: Any, key: str = "") -> Any:
    if isinstance(node, dict):
        return {name: poisoned(value, name) for name, value in node.items()}
    if isinstance(node, list):
        return [poisoned(value, key) for value in node]
    return HOSTILE if isinstance(node, str) and key not in ("state", "kind", "partition", "metric") else node


@pytest.mark.parametrize("name", ["drift", "broken", "unjudged"])
def test_hostile_text_stays_text(name: str) -> None:
    document = poisoned(BUILT[name])
    for who in ("reference", "baseline", "current"):
        document[who] = {f"{HOSTILE} {column}": each for column, each in document[who].items()}
    document["missing"] = [each | {"shares": {f"{HOSTILE} a": 0.5}} for each in document["missing"]]
    shown = Page(render(HOSTILE, document))
    assert not {"script", "img"} & set(shown.tags)
    assert not [name for _, name, _ in shown.attributes if name.startswith("on")]
    assert shown.text.count("<script>alert(1)</script>") > 20 and "{{ 7*7 }}" in shown.text
    assert not set("\x00\x0b\u202e\ud800") & set(shown.html)
    shown.html.encode()
    assert all(svg.tag == "svg" for svg in shown.pictures)


def test_hostile_text_stays_text_in_the_index() -> None:
    shown = Page(render_index(HOSTILE, poisoned(documents.entries(5))))
    assert not {"script", "img", "a"} & set(shown.tags) and "<script>alert(1)</script>" in shown.text
    shown.html.encode()


SMALL = documents.drift_alarm()
SMALL = {**SMALL, **{name: {"temp": SMALL[name]["temp"], "carrier": SMALL[name]["carrier"]} for name in ("reference", "current")}}
SMALL["quality"] = SMALL["quality"] | {"days": SMALL["quality"]["days"][-5:]}
PLACES = sorted({tuple(map(str, place)) for place in nodes(SMALL)})
ODD: st.SearchStrategy[Any] = st.sampled_from([
    None,
    math.nan,
    math.inf,
    -1,
    0,
    1e-320,
    10**400,
    "text",
    "2013-06-03",
    [],
    {},
    [1],
    True,
])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(PLACES), min_size=1, max_size=4), ODD)
def test_no_missing_or_odd_value_breaks_the_page(places: list[tuple[str, ...]], value: Any) -> None:
    document: Any = SMALL
    for place in places:
        document = replaced(document, place, value)
    shown = Page(render("Flight delays", document))
    assert "What follows:" in shown.text and not re.search(r"\b(None|nan|inf)\b", shown.html)
    assert shown.pictures is not None


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["partition", "outcome", "sentence", "rows", "model_version", "href", "publication", "origin"]), ODD)
def test_no_missing_or_odd_value_breaks_the_index(name: str, value: Any) -> None:
    entries = documents.entries(3)
    entries[1][name] = value
    assert not re.search(r"\b(None|nan|inf)\b", index(entries).html)


def test_nothing_given_is_changed() -> None:
    document, entries = copy.deepcopy(SMALL), documents.entries(5)
    render("Flight delays", SMALL), render_index("Flight delays", entries)
    assert document == SMALL and entries == documents.entries(5)


def test_days_of_a_year_ago_still_have_a_calendar() -> None:
    shown = index([{"partition": date(year, 6, 3).isoformat(), "outcome": "ok"} for year in (2011, 2012, 2013)])
    (calendar,) = [svg for svg in shown.pictures if svg.get("aria-label")]
    assert len(rows_of(calendar)) < 53 * 7 + 1
