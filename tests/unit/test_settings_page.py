"""The page of settings names every setting there is, and says what holds without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tidemill.settings import Settings, read_settings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
_ROW = re.compile(r"^\| `([a-z_]+)` \| (?:`([^`]+)`|[^|]+) \|", re.MULTILINE)
_PATIENT = {"redis_timeout": 1.0, "request_timeout": 5.0}
"""The settings whose defaults the tests make longer, as `settings.py` has them."""


def told() -> dict[str, str]:
    return dict(_ROW.findall(PAGE.read_text()))


def test_the_page_names_every_setting_and_no_other() -> None:
    assert set(told()) == set(Settings.model_fields)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_what_holds_without_a_setting_is_told(name: str) -> None:
    default, said = _PATIENT.get(name, Settings.model_fields[name].default), told()[name]
    if isinstance(default, bool | int | float | str):
        assert yaml.safe_load(said) == default
    else:
        assert said in ("", "api_token")
        assert not default


def test_the_file_of_the_page_is_taken_as_it_stands(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    (tmp_path / "feature_store.yaml").write_text(found[1])
    settings = read_settings(tmp_path)
    assert (settings.memory_limit, settings.quarantine_keep) == ("2gb", "90d")
