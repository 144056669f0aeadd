"""The settings of a Feast repository in which every store and the engine are ours."""

_SETTINGS = """
project: {project}
provider: local
registry: {{registry_type: sql, path: "sqlite:///.tidemill/registry.db"}}
offline_store: {{type: tidemill.feast.offline.PolarsOfflineStore}}
online_store: {{type: tidemill.feast.online.TidemillRedisOnlineStore}}
batch_engine: {{type: tidemill.feast.engine.ArrowComputeEngine}}
entity_key_serialization_version: 3
data_quality_monitoring: {{auto_baseline: false}}
"""


def settings_of(project: str) -> str:
    """The text of its `feature_store.yaml`."""
    return _SETTINGS.format(project=project)
