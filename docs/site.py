"""What MkDocs does not do by itself for the site of these pages: `hooks` of mkdocs.yml.

Links to files outside of docs/ lead to pages that show them, a test to its line. A site that would ask another server for
anything is not built.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
SHOWN = "source"  # the folder of the site with the files that are linked
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\n]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
TEST = re.compile(rf'(?P<link><a href="[^"]*\b{SHOWN}/(?P<path>[^"#]+)\.html)(?P<text>">[^<]*::(?P<name>\w+)<)')
LANGUAGES = {".py": "python", ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".sql": "sql", ".sh": "sh", ".md": "markdown"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """A page for each file of the repository that a page of docs/ leads to."""
    from mkdocs.structure.files import File, InclusionLevel

    for path in sorted({path for page in DOCS.rglob("*.md") for path in linked(page.read_text(), page)}):
        page = File.generated(config, shown_as(path), content=source_page(path), inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = page.file.abs_src_path
    return with_links_to_pages(markdown, Path(source)) if source else markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return with_links_to_lines(html)


def on_post_build(config: MkDocsConfig) -> None:
    from mkdocs.exceptions import PluginError

    if found := [f"{page.name}: {what}" for page in Path(config.site_dir).rglob("*.html") for what in asked_elsewhere(page)]:
        raise PluginError("pages ask another server for something: " + "; ".join(sorted(found)[:10]))


def linked(markdown: str, page: Path) -> Iterator[Path]:
    """The files outside of docs/ that a page links, from the root of the repository."""
    for link in LINK.finditer(markdown):
        if path := _outside(link["target"], page):
            yield path


def with_links_to_pages(markdown: str, page: Path) -> str:
    """The text of a page of docs/ with its links to files of the repository made links to the pages that show them."""

    def changed(link: re.Match[str]) -> str:
        path = _outside(link["target"], page)
        if path is None:
            return link[0]
        target = os.path.relpath(DOCS / shown_as(path), page.parent)
        return f"[{link['text']}]({target})"

    return LINK.sub(changed, markdown)


def with_links_to_lines(html: str) -> str:
    """A page as it was rendered, with each link to a test, `file::name`, made one to its line. MkDocs knows no lines."""
    return TEST.sub(lambda link: f"{link['link']}{_line(Path(link['path']), link['name'])}{link['text']}", html)


def shown_as(path: Path) -> str:
    return f"{SHOWN}/{path}.md"


def source_page(path: Path) -> str:
    """A page that shows a file, or all files of a folder."""
    place = REPOSITORY / path
    files = sorted(each for each in place.iterdir() if each.is_file()) if place.is_dir() else [place]
    head = f"---\ntitle: {path.name}\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n\n# {path}\n\n"
    return head + "\n".join((f"## {file.name}\n\n" if place.is_dir() else "") + _code(file) for file in files)


def _code(file: Path) -> str:
    text = file.read_text()
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall(r"`{3,}", text))])
    return f'{fence}{{.{LANGUAGES.get(file.suffix, "text")} linenums="1"}}\n{text.rstrip()}\n{fence}\n'


def asked_elsewhere(page: Path) -> list[str]:
    """What a built page would load from another server. Links that a reader may follow are none of it."""
    reader = _Loads()
    reader.feed(page.read_text())
    return reader.found


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        loads = [given.get("src"), given.get("srcset"), given.get("data"), given.get("href") if tag == "link" else None]
        self.found += [url for url in loads if url and re.match(r"(https?:)?//", url)]
        # The script of the theme fetches Mermaid from elsewhere when a page has a diagram of it.
        if "mermaid" in (given.get("class") or "").split():
            self.found.append("a diagram of Mermaid; draw an SVG")


def _outside(target: str, page: Path) -> Path | None:
    if re.match(r"[a-z]+:|/", target):
        return None
    file = (page.parent / target).resolve()
    if file.is_relative_to(DOCS) or not file.is_relative_to(REPOSITORY) or not file.exists():
        return None  # ours, or wrong: MkDocs says so
    return file.relative_to(REPOSITORY)


def _line(path: Path, name: str) -> str:
    """The anchor of a function in the page of its file."""
    lines = (REPOSITORY / path).read_text().splitlines()
    number = next((at for at, line in enumerate(lines, 1) if re.match(rf"\s*(async )?def {re.escape(name)}\b", line)), None)
    return f"#__codelineno-0-{number}" if number else ""
