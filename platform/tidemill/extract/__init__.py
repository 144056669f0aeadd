"""Raw data into the offline store: functions that yield what became known in an interval, checked, landed once."""

from tidemill.extract.contract import Column, Contract
from tidemill.extract.declare import Extraction, extracts
from tidemill.extract.quarantine import Fault, Quarantine, Quarantined
from tidemill.extract.readers import read_csv, read_parquet, read_sql
from tidemill.extract.run import ExtractReport, extract, fetch

__all__ = [
    "Column",
    "Contract",
    "ExtractReport",
    "Extraction",
    "Fault",
    "Quarantine",
    "Quarantined",
    "extract",
    "extracts",
    "fetch",
    "read_csv",
    "read_parquet",
    "read_sql",
]
