"""Every command that a page names is one that there is, with options that it has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from tidemill.cli.main import app

CHECKOUT = Path(__file__).parents[2]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^```.*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`(tidemill [^`]+)`")
_COMMAND = re.compile(r"(?:^|\$ |&& |: \")(tidemill .*?)(?: #| \|\||  |>>|\"|$)")


def commands(page: Path) -> list[str]:
    text = page.read_text()
    lines = [line for block in _FENCED.findall(text) for line in block.splitlines()]
    fenced = [found[1] for line in lines if (found := _COMMAND.search(line.strip()))]
    return fenced + [" ".join(named.split()) for named in _NAMED.findall(_FENCED.sub("", text))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_command_of_a_page_and_its_options_exist(page: Path) -> None:
    for line in commands(page):
        assert complaint_about(line) is None, line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tidemill models promot x", "no command promot"),
        ("tidemill runs --explan 3", "no option --explan"),
        ("tidemill features get offers -x a=1", "no option -x"),
    ],
)
def test_a_command_or_an_option_that_is_not_there_would_be_found(line: str, expected: str) -> None:
    assert complaint_about(line) == expected


def complaint_about(line: str) -> str | None:
    """What of a command line does not exist, or None."""
    words = shlex.split(line)[1:]
    command = get_command(app)
    while words and getattr(command, "commands", None):
        name = words.pop(0)
        if name in ("--help", "-h"):
            return None
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    for word in words:
        if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in options:
            return f"no option {word}"
    return None
