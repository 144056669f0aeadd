"""Reading a repository of definitions: its modules imported, its Feast objects and models collected.

Feast imports a repository's modules under their flat names (`sources`, `views.weather`) and with its folder as the
working directory. That is undone here afterwards, so that one process can read several repositories, and can read one
again after it changed.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from feast.base_feature_view import BaseFeatureView
from feast.feature_view import FeatureView
from feast.inference import (
    update_data_sources_with_inferred_event_timestamp_col,
    update_feature_views_with_inferred_features_and_entities,
)
from feast.infra.provider import get_provider
from feast.project import Project as FeastProject
from feast.repo_config import FeastConfigError, RepoConfig, load_repo_config
from feast.repo_contents import RepoContents
from feast.repo_operations import get_repo_files, parse_repo

from tidemill.definitions.code import IMPORTING
from tidemill.definitions.declare import Model
from tidemill.errors import ConfigurationError, DefinitionError, TidemillError
from tidemill.settings import FILE_NAME, read_project_file


@dataclass(frozen=True, kw_only=True)
class Repository:
    """What a folder defines: Feast's objects, the models beside them, and Feast's configuration."""

    root: Path
    config: RepoConfig
    contents: RepoContents
    models: tuple[Model, ...]


@contextmanager
def opened_repository(root: Path) -> Iterator[Repository]:
    """Read the repository in `root`, what was left out inferred from its files; its modules stay until the end.

    Raises ConfigurationError for a wrong `feature_store.yaml`, DefinitionError for a module that cannot be imported or
    an object that Feast refuses.
    """
    root = root.resolve()
    config = read_config(root)
    with IMPORTING, _imported_from(root) as modules:  # the working directory is the whole process's, too
        with _feast_errors(root):
            contents = parse_repo(root)
            if not contents.projects:
                contents.projects.append(
                    FeastProject(name=config.project, description=config.project_description or "")
                )
        models = _models_among(modules(), root)
        with _feast_errors(root):
            _infer(contents, config)
        yield Repository(root=root, config=config, contents=contents, models=models)


def read_config(root: Path) -> RepoConfig:
    """Feast's configuration of the folder. Raises ProjectNotFoundError or ConfigurationError."""
    read_project_file(root)
    try:
        return load_repo_config(root, root / FILE_NAME)
    except (FeastConfigError, ValueError) as error:
        raise ConfigurationError(f"Feast refuses {root / FILE_NAME}: {error}") from error


@contextmanager
def _imported_from(root: Path) -> Iterator[Any]:
    """The folder as working directory and first on the path; yields a function that gives its imported modules."""
    names = _module_names(root)
    hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    before, folder, writes = set(sys.modules), Path.cwd(), sys.dont_write_bytecode
    os.chdir(root)
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    try:
        yield lambda: {name: sys.modules[name] for name in sorted(set(sys.modules) - before) if name in names}
    finally:
        sys.dont_write_bytecode = writes
        sys.path.remove(str(root))
        os.chdir(folder)
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


def _module_names(root: Path) -> set[str]:
    """The names under which the folder's files are imported, folders in between included."""
    names = set()
    for file in get_repo_files(root):
        parts = file.relative_to(root).with_suffix("").parts
        names |= {".".join(parts[: length + 1]) for length in range(len(parts))}
    return names


def _models_among(modules: dict[str, ModuleType], root: Path) -> tuple[Model, ...]:
    found: dict[int, Model] = {}
    for module in modules.values():
        found |= {id(item): item for item in vars(module).values() if isinstance(item, Model)}
    models = sorted(found.values(), key=lambda model: model.name)
    for one, other in pairwise(models):
        if one.name == other.name:
            raise DefinitionError(f"Two models in {root} are named {one.name!r}.", hint="Give each its own name.")
    return tuple(models)


def _infer(contents: RepoContents, config: RepoConfig) -> None:
    """Let Feast fill in what definitions leave out: time columns, features, types."""
    provider = get_provider(config)
    update_data_sources_with_inferred_event_timestamp_col(contents.data_sources, config)
    for views in (contents.feature_views, contents.stream_feature_views, contents.on_demand_feature_views):
        update_feature_views_with_inferred_features_and_entities(provider, views, contents.entities, config)  # pyright: ignore[reportArgumentType]
    for view in contents.on_demand_feature_views:
        view.infer_features()
    by_name: dict[str, FeatureView | BaseFeatureView] = {
        view.name: view
        for group in (contents.feature_views, contents.stream_feature_views, contents.on_demand_feature_views)
        for view in group
    }
    for service in contents.feature_services:
        if any("@" in reference for reference in service._pending_feature_refs):
            raise DefinitionError(f"Service {service.name!r} pins a version of a view, which Tidemill does not keep.")
        service.resolve_pending_refs(config.project, None, fvs_to_update=by_name)  # pyright: ignore[reportArgumentType]
        service.infer_features(fvs_to_update=by_name)


@contextmanager
def _feast_errors(root: Path) -> Iterator[None]:
    """Feast's prints and warnings kept from the user, its errors told with the place in the user's files."""
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except TidemillError as error:
        place = _place(error, root)
        if place is None or not isinstance(error, DefinitionError):
            raise
        raise DefinitionError(f"In {place}: {error.message}", hint=error.hint) from error
    except Exception as error:  # whatever the user's modules or Feast's checks raise
        place = _place(error, root)
        where = "" if place is None else f" at {place}"
        raise DefinitionError(
            f"The definitions in {root} cannot be read{where}: {type(error).__name__}: {error}"
        ) from error


def _place(error: Exception, root: Path) -> str | None:
    """The file and line of the user's that an error came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
    return f"{Path(frames[-1].filename).relative_to(root)}:{frames[-1].lineno}" if frames else None
