"""The site of the docs: what is done beside MkDocs. That it can be built is `make site`, which CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import site
from tests.conftest import ROOT

PAGE = site.DOCS / "runbooks" / "a.md"


def test_a_link_out_of_the_docs_leads_to_a_page_that_shows_the_file() -> None:
    text = "See [the policy](../../deploy/aws/policy.json), [b](b.md), [c](../dags.md#x) and ![p](../pictures/a.png)."
    assert site.with_links_to_pages(text, PAGE) == text.replace(
        "../../deploy/aws/policy.json", "../source/deploy/aws/policy.json.md"
    )
    assert list(site.linked(text, PAGE)) == [Path("deploy/aws/policy.json")]


@pytest.mark.parametrize("target", ["../../deploy/nothing.json", "../../../../etc/hosts", "https://example.com/x", "/etc/hosts"])
def test_no_other_link_is_touched_and_no_other_file_is_shown(target: str) -> None:
    """One that leads nowhere is for MkDocs to refuse."""
    text = f"[x]({target})"
    assert site.with_links_to_pages(text, PAGE) == text and list(site.linked(text, PAGE)) == []


def test_a_test_is_shown_at_its_line() -> None:
    file, name = "tests/docs/test_site.py", "test_a_test_is_shown_at_its_line"
    link = f'<a href="source/{file}.html">docs/test_site::{name}</a>'
    found = re.search(r"#__codelineno-0-(\d+)\"", site.with_links_to_lines(link))
    assert found and f"def {name}" in (ROOT / file).read_text().splitlines()[int(found[1]) - 1]


def test_a_file_with_fences_of_its_own_is_shown_whole() -> None:
    text = site.source_page(Path("docs/platforms/aws.md"))
    assert "\n````{.markdown" in text and text.rstrip().endswith("\n````") and "\n```sql\n" in text


def test_a_folder_shows_its_files() -> None:
    assert {"## read.yaml", "## write.yaml"} <= set(site.source_page(Path("deploy/gcp/roles")).splitlines())


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<script src="https://cdn.example.com/x.js"></script>', ["https://cdn.example.com/x.js"]),
        ('<link rel="stylesheet" href="//fonts.example.com/x.css">', ["//fonts.example.com/x.css"]),
        ('<img src="http://example.com/x.png">', ["http://example.com/x.png"]),
        ('<pre class="mermaid">graph TD</pre>', ["a diagram of Mermaid; draw an SVG"]),
        ('<a href="https://example.com">read</a><img src="../pictures/a.png"><script src="assets/x.js"></script>', []),
    ],
)
def test_what_would_be_loaded_from_elsewhere_is_found(tmp_path: Path, html: str, found: list[str]) -> None:
    page = tmp_path / "page.html"
    page.write_text(html)
    assert site.asked_elsewhere(page) == found


def test_names_in_angle_brackets_are_seen() -> None:
    """Outside of code they would be taken for HTML, here and by whatever else shows Markdown."""
    hidden = {}
    for page in site.DOCS.rglob("*.md"):
        text = re.sub(r"^```.*?^```|^    .*?$|`[^`\n]*`|<!--.*?-->", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        if found := re.findall(r"<[a-z_]+>", text):
            hidden[str(page.relative_to(ROOT))] = sorted(set(found))
    assert hidden == {}
