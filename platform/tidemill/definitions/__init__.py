"""The catalog's nouns, and what users declare beside their Feast objects."""

from tidemill.definitions.catalog import (
    Aggregation,
    AggregationFunction,
    Catalog,
    CodeReference,
    Entity,
    Feature,
    Freshness,
    OnDemandInput,
    OnDemandView,
    Projection,
    RequestField,
    Schedule,
    Service,
    Source,
    StalePolicy,
    Stream,
    View,
)
from tidemill.definitions.types import ValueType

__all__ = [
    "Aggregation",
    "AggregationFunction",
    "Catalog",
    "CodeReference",
    "Entity",
    "Feature",
    "Freshness",
    "OnDemandInput",
    "OnDemandView",
    "Projection",
    "RequestField",
    "Schedule",
    "Service",
    "Source",
    "StalePolicy",
    "Stream",
    "ValueType",
    "View",
]
