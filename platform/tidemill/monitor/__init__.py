"""Watching what is served: parity, drift, freshness and performance."""
