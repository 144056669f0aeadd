from __future__ import annotations

import subprocess
import sys

import numpy as np
import polars as pl

from tidemill.offline.arrow_numbers import as_series

MAKES_COLUMNS = """
import sys
import numpy as np
from tidemill.offline.arrow_numbers import as_series
from tidemill.offline.windows import latest_windows
as_series("x", np.arange(3), np.array([True, False, False]))
print("pandas" in sys.modules)
"""


def test_what_is_missing_is_null_and_not_a_number_stays_what_it_is() -> None:
    missing = np.array([True, False, False])
    whole, fractions = np.array([7, 8, 9]), np.array([1.5, np.nan, 2.5])
    assert as_series("n", whole, missing).equals(pl.Series("n", [None, 8, 9]), check_dtypes=True)
    assert as_series("x", fractions, missing).equals(pl.Series("x", [None, float("nan"), 2.5]), check_dtypes=True)
    assert as_series("n", whole, None).equals(pl.Series("n", [7, 8, 9]), check_dtypes=True)
    nothing = as_series("n", np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool))
    assert (nothing.dtype, nothing.len()) == (pl.Int64, 0)


def test_columns_with_nulls_need_no_pandas() -> None:
    done = subprocess.run([sys.executable, "-c", MAKES_COLUMNS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
