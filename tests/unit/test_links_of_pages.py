"""What the pages point at is there: other pages, their headings, and the messages they explain."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted([CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", CHECKOUT / "CHANGELOG.md"]) + sorted(
    (CHECKOUT / "docs").rglob("*.md")
)
TROUBLES = CHECKOUT / "docs" / "how-to" / "when-something-is-wrong.md"
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    for link in _LINK.findall(_CODE.sub("", page.read_text())):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@cache
def headings(page: Path) -> frozenset[str]:
    """The names that headings have as the targets of links."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found)


def test_every_page_of_the_documentation_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    coming = [CHECKOUT / "README.md"]
    while coming:
        page = coming.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        names = [link.partition("#")[0] for link in _LINK.findall(page.read_text()) if "://" not in link]
        targets = [(page.parent / name).resolve() for name in names if name]
        coming += [file for target in targets for file in ([target] if target.is_file() else target.glob("*.md"))]
    assert set((CHECKOUT / "docs").rglob("*.md")) - seen == set()


def test_the_messages_that_are_explained_are_those_that_are_given() -> None:
    rows = re.findall(r"^\| (\".*?\") \|", TROUBLES.read_text(), re.MULTILINE)
    told = [text for row in rows for text in re.findall(r'"([^"]+)"', row)]
    folders = (CHECKOUT / part for part in ("platform", "training", "serving"))
    given = "\n".join(file.read_text() for folder in folders for file in folder.rglob("*.py")).replace(
        "{FILE_NAME}", "feature_store.yaml"
    )
    assert len(told) > 10
    assert [text for text in told if text not in given] == []
