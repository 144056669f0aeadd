"""The user's modules are run as they are now, whatever Python remembers of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tidemill.definitions.code import import_file


def test_an_edit_of_the_same_second_and_size_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    module = tmp_path / "features.py"
    answers = []
    for text in ("def answer():\n    return 1\n", "def answer():\n    return 2\n"):
        module.write_text(text)
        os.utime(module, (1_700_000_000, 1_700_000_000))
        answers.append(import_file(module, tmp_path).answer())
    assert answers == [1, 2]
