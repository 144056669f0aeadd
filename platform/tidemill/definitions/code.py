"""Functions of the user's: referred to by name, imported from the project's folder, never pickled."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import threading
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from tidemill.definitions.catalog import CodeReference
from tidemill.errors import DefinitionError

IMPORTING = threading.RLock()
"""Held while modules of users are imported: `sys.modules` and `sys.path` belong to the whole process, and a thread that
finds a module there which another one is still running would miss what comes further down in it."""


def reference_to(function: Callable[..., Any], root: Path) -> CodeReference:
    """Name a function defined at the top level of a module below `root`.

    Raises DefinitionError for a lambda, a nested function or one from elsewhere, which no other process could import,
    and for anything that is no function.
    """
    if not hasattr(function, "__code__"):
        raise DefinitionError(
            f"{function!r} is not a function.", hint=f"Wrap it in one, at the top level of a module below {root}."
        )
    qualname, file = function.__qualname__, Path(function.__code__.co_filename).resolve()
    if "<" in qualname or not file.is_relative_to(root.resolve()):
        raise DefinitionError(
            f"The function {qualname!r} in {file} cannot be imported by name.",
            hint=f"Define it at the top level of a module below {root}.",
        )
    module = ".".join(file.relative_to(root.resolve()).with_suffix("").parts)
    return CodeReference(module=module, qualname=qualname, digest=_digest(file))


def load(reference: CodeReference, root: Path) -> Callable[..., Any]:
    """Import the function. Raises DefinitionError if the file changed since it was applied."""
    file = root / Path(*reference.module.split(".")).with_suffix(".py")
    if not file.exists():
        raise DefinitionError(
            f"{file} is gone, but {reference.qualname!r} of it was applied.", hint="Bring it back, or apply again."
        )
    if _digest(file) != reference.digest:
        raise DefinitionError(
            f"{file} changed since it was applied, so {reference.qualname!r} may not be what was applied.",
            hint="Run `tidemill apply`.",
        )
    module = _import(file, f"_tidemill_user_{reference.digest[:16]}_{reference.module.replace('.', '_')}", root)
    return getattr(module, reference.qualname)


def import_file(file: Path, root: Path) -> Any:
    """Import a module of the project as it is now; unchanged, it is imported once for each process."""
    name = ".".join(file.relative_to(root).with_suffix("").parts)
    folder = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    return _import(file, f"_tidemill_user_{_digest(file)[:16]}_{folder}_{name.replace('.', '_')}", root)


def _import(file: Path, name: str, root: Path) -> Any:
    """Import a file under a private name, with the project's folder importable meanwhile for its flat imports."""
    with IMPORTING:
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, file, loader=_FromSource(name, str(file)))
        if spec is None or spec.loader is None:
            raise DefinitionError(f"{file} cannot be imported as a Python module.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        sys.path.insert(0, str(root))
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        finally:
            sys.path.remove(str(root))
        return module


class _FromSource(SourceFileLoader):
    """Runs what the file says now. Python's cache of compiled files takes an edit of the same second for no edit."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - Python calls it so
        return self.source_to_code(self.get_data(self.path), self.path)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
