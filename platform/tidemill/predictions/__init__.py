"""What was served, kept: the prediction log."""

from __future__ import annotations

from tidemill.predictions.batch import PredictionBatch
from tidemill.predictions.log import PredictionLog, PredictionRecord, TornLine

__all__ = ["PredictionBatch", "PredictionLog", "PredictionRecord", "TornLine"]
