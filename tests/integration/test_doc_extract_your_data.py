"""The page on extraction does what it says: its files are written and its commands run, in a folder of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "extract-your-data.md"
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after the page was followed from top to bottom, and what the commands printed."""
    folder, printed, commands = tmp_path_factory.mktemp("shop"), "", ["set -eu"]
    for language, title, body in _BLOCK.findall(PAGE.read_text()):
        if title:
            commands.append(f"cat > {title} <<'END_OF_FILE'\n{body}END_OF_FILE")
        elif language == "console":
            commands.append(body)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", "\n".join(commands)],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    return folder / "shop", printed


def test_the_good_orders_land_once(followed):
    folder, _ = followed
    orders = pl.read_parquet(folder / "data" / "orders").sort("order_id")
    assert orders.select("order_id", "amount").rows() == [(1, 19.9), (2, 5.0), (3, 7.5), (4, 1250.0)]
    assert len(list((folder / "data" / "orders").iterdir())) == 2


def test_the_bad_order_is_shown_with_its_reason(followed):
    folder, printed = followed
    assert "1 rows in quarantine: amount is less than 0" in printed
    assert "amount is less than 0" in printed.rsplit("__reason", 1)[1]
    assert len(list((folder / ".tidemill" / "quarantine" / "orders").iterdir())) == 1


def test_the_other_readers_are_called_as_the_page_says(tmp_path):
    """The readers' own lines, on files of this machine in place of the bucket."""
    lines = next(
        body for language, title, body in _BLOCK.findall(PAGE.read_text()) if language == "python" and not title
    )
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "orders-1.csv").write_text(
        "order_id;customer;amount;placed_at\n1;ada;2.5;2024-03-01 10:00\n"
    )
    csv, parquet = lines.strip().splitlines()
    contract = re.search(r"^ORDERS = .*?^\)$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert contract is not None
    names: dict[str, object] = {}
    code = f"""
from datetime import datetime, UTC
from pathlib import Path
from tidemill.extract import Column, Contract, read_csv, read_parquet
from tidemill.extract.readers import reading_below
start, end = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC)
{contract[0]}
with reading_below(Path({str(tmp_path)!r})):
    first = {csv}.collect()
    first.write_parquet({str(tmp_path / "orders.parquet")!r})
    second = {parquet.replace("s3://my-bucket/orders/", "orders.parquet")}.collect()
"""
    exec(compile(code, "page", "exec"), names)  # noqa: S102 - the page's own lines
    first, second = names["first"], names["second"]
    assert isinstance(first, pl.DataFrame)
    assert isinstance(second, pl.DataFrame)
    assert first.equals(second)
    assert first.height == 1
