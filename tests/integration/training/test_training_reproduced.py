"""A model is rebuilt from what it was trained on, or it is said what has changed."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from training_shop import (
    ESTIMATORS,
    START,
    TODAY,
    at,
    redefine,
    rewrite,
)

from tidemill.definitions.catalog import (
    Split,
)
from tidemill.errors import (
    NotDefinedError,
    NotReproducibleError,
)
from tidemill.project import Project
from tidemill_training.reproduce import reproduce
from tidemill_training.train import train


def test_a_model_is_reproduced_to_the_last_bit(shop: Project):
    report = reproduce(shop, "order_return@champion").check()
    assert report.equal
    assert report.largest_difference == 0.0
    assert {found.what for found in report.comparisons} >= {"dataset digest", "test roc_auc", "test log_loss"}


def test_a_model_is_reproduced_after_data_has_gone_on_and_definitions_have_changed(shop: Project):
    redefine(shop, split=Split(test=timedelta(days=3)), seed=99)
    more = pl.read_parquet(shop.root / "data" / "visits" / "part-0.parquet").with_columns(
        known_time=pl.lit(TODAY + timedelta(days=1)), mean_visit=pl.lit(99.0)
    )
    more.write_parquet(shop.root / "data" / "visits" / "part-1.parquet")
    assert reproduce(at(shop, TODAY + timedelta(days=9)), "order_return@1").equal


def test_what_lands_after_a_training_does_not_change_it_even_if_it_was_known_before(fresh_shop: Project):
    """Extraction brings yesterday's outcomes this night, and a training in between must not count on them."""
    folder = fresh_shop.root / "data" / "returns"
    returns = pl.read_parquet(folder / "part-0.parquet")
    midnight = TODAY - timedelta(hours=5)
    landed = returns.filter(pl.col("known_time") < midnight)
    (folder / "part-0.parquet").unlink()
    landed.write_parquet(folder / f"{START:%Y%m%dT%H%M%SZ}_{midnight:%Y%m%dT%H%M%SZ}.parquet")
    trained = train(fresh_shop, "order_return")
    assert trained.artifact.manifest.dataset.until == midnight
    later = returns.filter(pl.col("known_time") >= midnight)
    later.write_parquet(folder / f"{midnight:%Y%m%dT%H%M%SZ}_{TODAY:%Y%m%dT%H%M%SZ}.parquet")
    assert reproduce(fresh_shop, "order_return@champion").equal


def test_runs_recorded_later_for_earlier_times_do_not_change_what_a_model_was_trained_on(shop: Project):
    noon = START + timedelta(days=20)
    run = shop.ledger.claim("customer_visits", start=START, end=noon, at=noon)
    assert run is not None
    shop.ledger.succeed(run, cutoff=noon, rows_read=0, rows_written=0, rows_skipped=0, at=noon)
    assert len(shop.ledger.cutoffs("customer_visits")[0]) == 1
    assert reproduce(shop, "order_return@1").equal


def test_history_that_was_tampered_with_shows(shop: Project):
    rewrite(shop, "visits", lambda visits: visits.with_columns(mean_visit=pl.col("mean_visit") + 0.1))
    report = reproduce(shop, "order_return@1")
    assert not report.equal
    assert report.largest_difference >= 0.0
    with pytest.raises(NotReproducibleError, match="dataset digest"):
        report.check()


def test_a_model_whose_functions_have_changed_says_so(shop: Project):
    (shop.root / "estimators.py").write_text(ESTIMATORS.replace("max_iter=30", "max_iter=31"))
    with pytest.raises(NotReproducibleError, match=r"estimators.py.* changed.*Check out the definitions"):
        reproduce(shop, "order_return@1")


@pytest.mark.parametrize("reference", ["order_return@9", "order_return@chalenger", "order_retrun"])
def test_a_version_that_does_not_exist_is_named(reference: str, shop: Project):
    with pytest.raises(NotDefinedError):
        reproduce(shop, reference)
