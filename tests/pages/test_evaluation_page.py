"""The page about an evaluation, as people read it: every variant says what it must, and nothing that was not measured."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import fields
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.config import Gate
from include.core.gates import Circumstances, Rules, judge
from include.evaluation_page import render
from tests.pages import documents

VOID = {"meta", "br"}


class Page(HTMLParser):
    """What a reader sees: the text, the tables, the pictures. Fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html, self._open, self.tags, self.attributes = html, [], [], []
        self._words: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attributes]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, text: str) -> None:
        if "style" not in self._open:
            self._words.append(text)

    @property
    def pictures(self) -> list[ElementTree.Element]:
        return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", self.html, re.DOTALL)]

    def section(self, name: str) -> str:
        """The text from one heading to the next."""
        found = re.search(rf'<h2 id="{name}">(.*?)(<h2 |</body>)', self.html, re.DOTALL)
        assert found, name
        return Page(f"<div>{found[1].replace('</h2>', ' ')}</div>").text


def page(evaluation: dict[str, Any], verdict: dict[str, Any] | None = None, **more: Any) -> Page:
    verdict = documents.verdict() if verdict is None else verdict
    more = {"title": "Flight delays", "run": documents.run()} | more
    return Page(render(more.pop("title"), more.pop("run"), evaluation, verdict, **more))


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "promote": (documents.classification(), documents.verdict()),
    "hold": (documents.classification(1200, 1.02), documents.verdict("HOLD")),
    "reject": (documents.classification(1200, 0.8), documents.verdict("REJECT", "non-inferiority")),
    "first": (documents.first_model(documents.classification()), documents.verdict(rule="first model")),
    "regression": (documents.regression(), documents.verdict()),
    "first regression": (documents.first_model(documents.regression()), documents.verdict(rule="first model")),
    "bare": (documents.bare(), documents.verdict("HOLD", "first model", rows_needed=None, findings=[], reasons=[])),
    "bare regression": (documents.bare("regression"), documents.verdict("HOLD", "first model", findings=[])),
    "nothing at all": ({}, {}),
}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Page:
    return page(*VARIANTS[request.param])


def test_every_variant_is_whole_and_loads_nothing(variant: Page) -> None:
    assert variant.html.startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "img", "object", "form", "base"} & set(variant.tags)
    for _, name, value in variant.attributes:
        assert not name.startswith("on") and name != "src"
        assert name != "href" or (value or "").startswith("#")
    assert "://" not in variant.html and "@import" not in variant.html and "url(" not in variant.html
    assert "viewport" in variant.html and "prefers-color-scheme: dark" in variant.html and "@media print" in variant.html


def test_every_variant_says_nothing_that_is_no_number(variant: Page) -> None:
    assert not re.search(r"\b(None|nan|NaN|inf|null|undefined|Markup)\b", variant.html)


def test_every_picture_is_well_formed_and_has_words(variant: Page) -> None:
    for svg in variant.pictures:
        words = svg.get("role") == "img" and svg.get("aria-label") and svg.findtext("title")
        assert words or svg.get("aria-hidden") == "true"


def test_every_link_of_the_contents_leads_somewhere(variant: Page) -> None:
    targets = {value for _, name, value in variant.attributes if name == "id"}
    links = [value for tag, name, value in variant.attributes if (tag, name) == ("a", "href")]
    assert len(links) >= 7 and {str(link).removeprefix("#") for link in links} <= targets


def test_the_sections_are_in_the_order_a_reader_needs() -> None:
    found = re.findall(r'<h2 id="(\w+)">', page(*VARIANTS["promote"]).html)
    assert found == ["metrics", "curves", "calibration", "slices", "data", "scores", "findings", "facts"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("promote", ["✔ PROMOTE", "The challenger may replace the champion.", "superiority", "small chance of error"]),
        ("hold", ["HOLD", "The champion stays.", "About 12,345 more labelled rows", "145 more days of labels"]),
        ("reject", ["✕ REJECT", "not good enough. The champion stays.", "non-inferiority", "decayed or is older"]),
        ("first", ["✔ PROMOTE", "may become the first champion", "There is no champion to compare with"]),
        ("bare", ["HOLD", "No model is promoted", "cannot be said how many more", "no reason was recorded"]),
        ("nothing at all", ["HOLD", "Rule: not recorded"]),
    ],
)
def test_the_verdict_comes_first_and_in_words(name: str, said: list[str]) -> None:
    shown = page(*VARIANTS[name])
    verdict = Page(re.findall(r"<section.*?</section>", shown.html, re.DOTALL)[0]).text
    for words in said:
        assert words in verdict
    assert shown.text.index(verdict[:20]) < shown.text.index("Metrics on the holdout")


def test_an_outcome_that_nobody_knows_is_not_a_promotion() -> None:
    shown = page(documents.classification(), documents.verdict("MAYBE"))
    assert "PROMOTE" not in re.findall(r"<section.*?</section>", shown.html, re.DOTALL)[0].replace("decides for", "")
    assert "The champion stays." in shown.text


def test_the_reasons_that_decided_are_told() -> None:
    shown = page(documents.classification(), documents.verdict(reasons=["carrier HA became worse by 9 %", "too slow"]))
    assert "carrier HA became worse by 9 % too slow" in shown.text


def test_metrics_have_intervals_directions_and_a_paired_improvement() -> None:
    evaluation = documents.classification()
    evaluation["challenger"]["metrics"]["auc"] = {"value": 0.75812, "low": 0.7461, "high": 0.7702}
    evaluation["champion"]["metrics"]["auc"] = {"value": 0.7389, "low": 0.7262, "high": 0.7516}
    evaluation["comparisons"] = [
        {"metric": "auc", "champion": 0.7389, "challenger": 0.75812, "improvement": 0.01922, "standard_error": 0.004},
        {"metric": "log_loss", "champion": 0.5, "challenger": 0.49, "improvement": -0.002, "standard_error": 0.004},
        {"metric": "average_precision", "champion": 0.5, "challenger": 0.503, "improvement": 0.003, "standard_error": 0.004},
        {"metric": "brier", "champion": 0.16, "challenger": 0.17, "improvement": -0.01, "standard_error": 0.001},
    ]
    metrics = page(evaluation).section("metrics")
    assert "0.739 [0.726, 0.752]" in metrics and "0.758 [0.746, 0.770]" in metrics
    assert "+0.0192 [+0.0114, +0.0271] better" in metrics
    assert "−0.0020 [−0.0098, +0.0058] cannot be told apart" in metrics
    assert "+0.0030 [−0.0048, +0.0108] cannot be told apart" in metrics
    assert "−0.0100 [−0.0120, −0.0080] worse" in metrics
    assert metrics.count("higher is better") == 2 and metrics.count("lower is better") == 2


def test_an_interval_that_cannot_be_told_is_not_made_up() -> None:
    evaluation = documents.classification()
    evaluation["challenger"]["metrics"] = {"auc": {"value": 0.75, "low": None, "high": None}, "brier": {"value": None}}
    evaluation["champion"]["metrics"] = {}
    evaluation["comparisons"] = [{"metric": "auc", "improvement": 0.01, "standard_error": None}]
    metrics = page(evaluation).section("metrics")
    assert "0.7500" in metrics and "+0.0100" in metrics and "Brier score" in metrics
    assert not re.search(r"0\.7500 \[|0\.0100 \[|better cannot", metrics)


def test_models_are_told_apart_without_colour() -> None:
    shown = page(*VARIANTS["promote"])
    assert "challenger (solid, filled)" in shown.text and "champion (dashed, hollow)" in shown.text
    for style in ("s0 trace", "s1 trace", "s0 dot", "s1 dot"):
        assert f'class="{style}"' in shown.html
    assert "champion (dashed, hollow)" not in page(*VARIANTS["first"]).text


def test_a_classification_has_its_curves_and_a_regression_its_forecasts() -> None:
    curves = page(*VARIANTS["promote"])
    labels = [svg.get("aria-label") or "" for svg in curves.pictures]
    assert any(label.startswith("ROC curve. AUC (ranking): challenger 0.7") for label in labels)
    assert any(label.startswith("Precision and recall curve") for label in labels)
    assert "24.9 % of the rows are positive" in curves.section("curves")
    regression = page(*VARIANTS["regression"])
    assert "ROC" not in regression.text and "Positives" not in regression.text
    assert "Forecast and outcome" in regression.section("calibration") and "mean outcome" in regression.text


def test_a_curve_that_is_missing_is_said() -> None:
    evaluation = documents.classification()
    evaluation["challenger"]["roc"] = evaluation["champion"]["roc"] = evaluation["champion"]["pr"] = None
    curves = page(evaluation).section("curves")
    assert "There is no such curve" in curves and "No curve of the champion." in curves


def test_calibration_has_intervals_and_rows() -> None:
    evaluation = documents.classification()
    evaluation["challenger"]["calibration"] = [{"forecast": 0.1, "outcome": 0.123, "low": 0.101, "high": 0.145, "rows": 1301}]
    evaluation["challenger"]["calibration_error"] = 0.0234
    calibration = page(evaluation).section("calibration")
    assert "Challenger: calibration error 0.0234" in calibration and "Champion: calibration error 0.0312" in calibration
    assert "0.1000 0.123 [0.101, 0.145] 1,301" in calibration


def test_slices_that_the_gate_did_not_judge_are_grey() -> None:
    shown = page(*VARIANTS["promote"])
    slices = shown.section("slices")
    assert "UA 1,169" in slices and "HA shown, not judged 32 11" in slices and "B6 failed 1,080" in slices
    assert slices.count("shown, not judged") == 13 - 2 + 1  # and the legend
    grey = [svg for svg in shown.pictures if ElementTree.tostring(svg).count(b'class="muted dot"')]
    assert len(grey) == 13 - 2
    assert not [svg for svg in grey if "UA" in (svg.get("aria-label") or "")]


def test_a_verdict_of_the_gate_itself_is_shown_whole() -> None:
    limits = Gate(slices=["carrier"]).model_dump(include={field.name for field in fields(Rules)})
    known = Circumstances(decay_confirmed=False, champion_age_days=30, label_coverage=1.0, holdout_uses=0, artifact_checked=True)
    evaluation = documents.classification()
    verdict = judge(evaluation, Rules(task="classification", **limits), known).to_json()
    assert verdict["outcome"] == "PROMOTE"
    shown = page(evaluation, verdict)
    for reason in (*verdict["reasons"], *(finding["sentence"] for finding in verdict["findings"])):
        assert " ".join(reason.split()) in shown.text
    slices = shown.section("slices")
    assert (
        "UA 1,169" in slices and "9E 252" in slices and "HA shown, not judged 32" in slices and "EWR shown, not judged" in slices
    )


def test_each_slice_has_its_improvement_as_number_and_picture() -> None:
    evaluation = documents.classification()
    evaluation["slices"] = [
        {"column": "origin", "value": "EWR", "rows": 900, "positives": 90, "challenger_loss": 0.4, "champion_loss": 0.41,
         "improvement": 0.01, "standard_error": 0.002, "challenger_auc": 0.75, "champion_auc": None},
    ]  # fmt: skip
    shown = page(evaluation)
    assert "origin EWR shown, not judged 900 90 0.4100 0.4000 – 0.750 +0.0100 [+0.0061, +0.0139]" in shown.section("slices")
    assert [svg for svg in shown.pictures if svg.get("aria-label") == "origin EWR: improvement +0.0100 [+0.0061, +0.0139]"]


def test_a_first_model_has_slices_but_no_improvement() -> None:
    slices = page(*VARIANTS["first"]).section("slices")
    assert "UA 1,169" in slices and "Improvement" not in slices and "champion" not in slices


def test_changes_of_the_data() -> None:
    data = page(*VARIANTS["promote"]).section("data")
    assert "wind_speed" in data and "12.7 to 16.1 10.2 % 18.1 %" in data and "missing 0.0 % 0.41 %" in data
    evaluation = documents.classification()
    assert "was not compared" in page(evaluation | {"data_changes": None}).section("data")
    assert "no feature of the holdout differs" in page(evaluation | {"data_changes": []}).section("data")
    assert "There is no champion" in page(*VARIANTS["first"]).section("data")
    many = [{"feature": f"f{n}", "distance": 0.1, "cell": "x", "before": 0, "after": 1} for n in range(34)]
    assert "And 4 features that differ less." in page(evaluation | {"data_changes": many}).section("data")


def test_scores_of_both_models() -> None:
    labels = [svg.get("aria-label") for name in ("promote", "first") for svg in page(*VARIANTS[name]).pictures]
    assert "Distribution of the scores of both models" in labels
    assert "Distribution of the scores of the challenger" in labels
    assert "is not known" in page(*VARIANTS["bare"]).section("scores")


def test_findings_begin_with_what_failed() -> None:
    findings = [
        {"check": "cost", "outcome": "PROMOTE", "sentence": "cheap", "value": 3.4, "limit": 600},
        {"check": "rows", "outcome": "HOLD", "sentence": "too few", "value": 100, "limit": 500},
        {"check": "floor auc", "outcome": "REJECT", "sentence": "too low", "value": 0.5512, "limit": 0.6},
        {"check": "odd", "outcome": "who knows", "sentence": "odd", "value": None, "limit": math.inf},
    ]
    told = page(documents.classification(), documents.verdict("REJECT", findings=findings)).section("findings")
    assert "failed floor auc too low 0.5512 0.6 not enough evidence rows too few 100 500" in told
    assert "not enough evidence odd odd – – passed cost cheap 3.4 600" in told


def test_facts_are_complete() -> None:
    facts = page(*VARIANTS["promote"]).section("facts")
    for fact in (
        *("2013-03-17 to 2013-03-30 (14 days)", "Labelled rows in it 6,000", "Positives 1,495 (24.9 %)"),
        *("Trained on 2012-12-01 to 2013-02-14 2013-01-01 to 2013-03-16", "Training rows 58,911 61,204"),
        *(documents.DIGEST, documents.DIGEST[::-1], "1.84 MB", "3.41 s", "2013-01-01 to 2013-03-30"),
        *("scheduled__2013-03-31T03:00:00+00:00", "762f6bf0c1de", "2013-03-31-5f0c2e8a91b7d364", "spent 2.5 %"),
    ):
        assert fact in facts
    assert re.search(r"decide differently 1?\d\.\d %", facts)


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}\x00\x0b\u202e\ud800"


def test_hostile_text_stays_text() -> None:
    def poisoned(node: Any, key: str = "") -> Any:
        if isinstance(node, dict):
            return {name: poisoned(value, name) for name, value in node.items()}
        if isinstance(node, list):
            return [poisoned(value, key) for value in node]
        return HOSTILE if isinstance(node, str) and key not in ("task", "outcome", "metric") else node

    evaluation, verdict, run = map(poisoned, (documents.classification(), documents.verdict(), documents.run()))
    evaluation["challenger"]["metrics"][HOSTILE] = {"value": 1.0, "low": 0.5, "high": 1.5}
    evaluation["comparisons"].append({"metric": HOSTILE, "improvement": 1.0, "standard_error": 0.1})
    shown = page(evaluation, verdict, run=run, title=HOSTILE)
    assert not {"script", "img"} & set(shown.tags)
    assert not [name for _, name, _ in shown.attributes if name.startswith("on")]
    assert shown.text.count("<script>alert(1)</script>") > 50 and "{{ 7*7 }}" in shown.text
    assert not set("\x00\x0b\u202e\ud800") & set(shown.html)
    shown.html.encode()  # a lone surrogate cannot be written to a file
    for svg in shown.pictures:
        assert svg.tag == "svg"


def nodes(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node[:2]) if isinstance(node, list) else ()
    for name, value in children:
        yield (*path, name)
        yield from nodes(value, (*path, name))


SMALL = documents.classification(300)
PLACES = sorted({tuple(map(str, place)) for place in nodes(SMALL)})


def replaced(node: Any, place: tuple[str, ...], value: Any) -> Any:
    """A copy of a document with another value at a place; the same if the place is gone."""
    if not place:
        return value
    if isinstance(node, dict):
        return {name: replaced(each, place[1:], value) if name == place[0] else each for name, each in node.items()}
    if isinstance(node, list):
        return [replaced(each, place[1:], value) if str(number) == place[0] else each for number, each in enumerate(node)]
    return node


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(PLACES), min_size=1, max_size=4),
    st.sampled_from([None, math.nan, math.inf, -1, 0, 10**400, "text", [], {}, True]),
)
def test_no_missing_or_odd_value_breaks_the_page(places: list[tuple[str, ...]], value: Any) -> None:
    evaluation = SMALL
    for place in places:
        evaluation = replaced(evaluation, place, value)
    shown = page(evaluation)
    assert "PROMOTE" in shown.text and not re.search(r"\b(None|nan|inf)\b", shown.html)
