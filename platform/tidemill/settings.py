"""One frozen settings object for each process, read once at the entry point and passed down.

Settings come from the `tidemill:` section of the project's `feature_store.yaml`, and each may be overridden by an
environment variable: `TIDEMILL_REDIS_URL` overrides `redis_url`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tidemill.errors import ConfigurationError, DefinitionError, ProjectNotFoundError

FILE_NAME = "feature_store.yaml"
_TOP_LEVEL = {
    "project", "project_description", "provider", "registry", "offline_store", "online_store", "batch_engine",
    "entity_key_serialization_version", "flags", "auth", "feature_server", "materialization", "coerce_tz_aware",
    "repo_path", "openlineage", "vector_store", "tidemill", "mlflow",
    "data_quality_monitoring", "embedding_model",
}  # fmt: skip


class Settings(BaseSettings):
    """How a project runs on this machine. What it defines is in the catalog."""

    model_config = SettingsConfigDict(env_prefix="TIDEMILL_", extra="forbid", frozen=True)

    state: str = Field(".tidemill", description="folder of the embedded parts, relative to the project's folder")
    redis_url: SecretStr | None = Field(None, description="a Redis to use instead of the embedded one")
    redis_maxmemory: str = Field("2gb", description="what the embedded Redis may hold")
    metadata_url: SecretStr | None = Field(None, description="SQLAlchemy URL of the metadata database; default SQLite")
    mlflow_tracking_uri: str | None = Field(None, description="an MLflow server; default a SQLite file")
    host: str = Field("127.0.0.1", description="address the API binds to")
    port: int = Field(8000, ge=0, le=65535, description="port the API listens on")
    api_token: SecretStr | None = Field(None, description="a bearer token that every request must carry")
    admin_token: SecretStr | None = Field(None, description="a bearer token for /v1/admin; default the API's")
    max_rows: int = Field(10_000, ge=1, description="rows one request may ask for")
    max_body_bytes: int = Field(16 * 2**20, ge=1, description="size of one request's body")
    max_pending: int = Field(1_000, ge=1, description="requests that may wait for a model before 429 is answered")
    request_timeout: float = Field(5.0, gt=0, description="seconds within which a request is answered or refused")
    prediction_log_thread: bool = Field(
        False, description="write the prediction log beside the event loop: for disks that may hang, as over a network"
    )
    redis_timeout: float = Field(1.0, gt=0, description="seconds to wait for the online store")
    redis_replicas: int | None = Field(
        None, ge=0, description="replicas that must hold a write before it is acknowledged; default 1 behind Sentinel"
    )
    memory_limit: str | None = Field(None, description="memory offline work may take, e.g. 2gb; default unlimited")
    push_horizon: str = Field("5s", description="how far ahead of the clock a pushed event may lie")
    quarantine_keep: str | None = Field(
        None, description="how long rows that broke a contract are kept, e.g. 90d; default until they are cleared"
    )
    consume: dict[str, SecretStr] = Field(
        {}, description="logs from which `tidemill up` pushes events: a stream's name and the address of its log"
    )
    online_layout: str = Field("feast", pattern="^(feast|packed)$", description="feast: any Feast client reads it")

    @field_validator("quarantine_keep")
    @classmethod
    def _is_duration(cls, value: str | None) -> str | None:
        from tidemill.definitions.duration import parse_duration

        try:
            parse_duration(value or "0s")
        except DefinitionError as error:
            raise ValueError(str(error)) from None
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic calls this with all of them
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, so that a deployment changes nothing in the repository."""
        return env_settings, init_settings


def read_project_file(root: Path) -> dict[str, Any]:
    """The parsed `feature_store.yaml` of a project's folder.

    Raises ProjectNotFoundError without the file, ConfigurationError where it is not YAML or holds a key that neither
    Feast nor Tidemill knows (Feast ignores a misspelt key silently).
    """
    file = root / FILE_NAME
    if not file.is_file():
        raise ProjectNotFoundError(
            f"There is no {FILE_NAME} in {root}.",
            hint="Name a project's folder with --project, or run `tidemill init`.",
        )
    try:
        found = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("project"), str):
        raise ConfigurationError(f"{file} has no `project:`.", hint="Add a line such as `project: my_project`.")
    unknown = set(found) - _TOP_LEVEL
    if unknown:
        raise ConfigurationError(
            f"{file} has unknown keys: {', '.join(sorted(unknown))}.",
            hint=f"Known: {', '.join(sorted(_TOP_LEVEL))}.",
        )
    return found


def read_settings(root: Path) -> Settings:
    """The settings of the project in `root`. Raises ConfigurationError naming each wrong setting."""
    section = read_project_file(root).get("tidemill") or {}
    if not isinstance(section, dict):
        raise ConfigurationError(f"`tidemill:` in {root / FILE_NAME} is not a mapping of settings.")
    try:
        return Settings(**section)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(
            f"Settings in {root / FILE_NAME} (or TIDEMILL_* in the environment) are wrong: {wrong}."
        ) from None
