"""The page on extraction does what it says: its files are written and its commands run, in a folder of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from http_servers import QuietHandler, answering

from tidemill.definitions.catalog import Catalog, Source
from tidemill.extract import extract
from tidemill.project import open_project

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
    listed, shown = printed.split("In quarantine", 1)[1].split("orders, in quarantine", 1)
    assert "amount is less than 0" in listed
    assert "-7.5" in shown
    assert "amount is less than 0" in shown
    assert len(list((folder / ".tidemill" / "quarantine" / "orders").iterdir())) == 1


def untitled_blocks() -> list[str]:
    return [body for language, title, body in _BLOCK.findall(PAGE.read_text()) if language == "python" and not title]


def contract() -> str:
    found = re.search(r"^ORDERS = .*?^\)$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def test_the_other_readers_are_called_as_the_page_says(tmp_path):
    """The readers' own lines, on files of this machine in place of the bucket."""
    lines, _ = untitled_blocks()
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "orders-1.csv").write_text(
        "order_id;customer;amount;placed_at\n1;ada;2.5;2024-03-01 10:00\n"
    )
    csv, parquet = lines.strip().splitlines()
    names: dict[str, object] = {}
    code = f"""
from datetime import datetime, UTC
from pathlib import Path
from tidemill.extract import Column, Contract, read_csv, read_parquet
from tidemill.extract.locations import reading_below
start, end = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC)
{contract()}
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


class _Shop(QuietHandler):
    """Two pages of one order each, as the page's shop has them."""

    def do_GET(self) -> None:
        first = self.path.startswith("/orders?from=2024-03-01T00:00:00+00:00")
        order = (
            {"order_id": 1, "customer": "ada", "amount": 2.5}
            if first
            else {"order_id": 2, "amount": 5, "customer": None}
        )
        answer = {
            "orders": [{**order, "placed_at": "2024-03-01T10:00:00"}],
            "next": "/page/2" if first else None,
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def shop() -> Iterator[str]:
    with answering(_Shop) as address:
        yield f"http://{address}"


def test_rows_that_come_page_by_page_are_yielded_as_the_page_says(tmp_path, shop):
    _, body = untitled_blocks()
    head = (
        "from datetime import datetime\nimport httpx\nimport polars as pl\n"
        f"from tidemill.extract import Column, Contract, extracts\n{contract()}\n"
    )
    (tmp_path / "feature_store.yaml").write_text("project: shop\n")
    (tmp_path / "extract.py").write_text(head + body.replace("https://shop.example.com", shop))
    start = datetime(2024, 3, 1, tzinfo=UTC)
    with closing(open_project(tmp_path)) as project:
        source = Source(name="orders", path="data/orders", timestamp_field="placed_at")
        project.catalogs.add(Catalog(project="shop", sources=(source,)), at=start)
        (report,) = extract(project, start=start, end=start + timedelta(days=1))
    assert (report.rows, report.reasons) == (1, (("customer is null", 1),))
    assert pl.read_parquet(tmp_path / "data" / "orders").get_column("amount").to_list() == [2.5]
