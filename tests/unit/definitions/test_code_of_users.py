"""The user's modules are run as they are now, whatever Python remembers of them."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
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


def test_several_threads_that_need_a_module_first_all_get_the_whole_of_it(tmp_path: Path) -> None:
    """As at the first requests to a server, whose on-demand features are computed in several threads."""
    module = tmp_path / "features.py"
    module.write_text("import time\n\ntime.sleep(0.05)\n\n\ndef answer():\n    return 1\n")
    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(lambda _: import_file(module, tmp_path).answer(), range(4))] == [1] * 4
