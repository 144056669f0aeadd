"""Raw data into the offline store: what became known in an interval, landed once and atomically."""

from tidemill.extract.declare import Extraction, extracts
from tidemill.extract.run import ExtractReport, extract, fetch

__all__ = ["ExtractReport", "Extraction", "extract", "extracts", "fetch"]
