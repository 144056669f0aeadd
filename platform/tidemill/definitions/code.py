"""Functions of the user's: referred to by name, imported from the project's folder, never pickled."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from tidemill.definitions.catalog import CodeReference
from tidemill.definitions.function_text import function_digest, module_text
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
    if _function_behind(getattr(function, "__globals__", {}).get(qualname)) is not function:
        raise DefinitionError(
            f"The name {qualname!r} in {file} stands for something else than this function once the module has run.",
            hint="Give each function a name of its own at the top level of its module, and no decorator that hides it.",
        )
    module = ".".join(file.relative_to(root.resolve()).with_suffix("").parts)
    return CodeReference(module=module, qualname=qualname, digest=function_digest(file, qualname, root))


def load(reference: CodeReference, root: Path) -> Callable[..., Any]:
    """Import the function.

    Raises DefinitionError if it, or what it uses, changed since it was applied, and if it cannot be imported.
    """
    file = root / Path(*reference.module.split(".")).with_suffix(".py")
    if not file.exists():
        raise DefinitionError(
            f"{file} is gone, but {reference.qualname!r} of it was applied.", hint="Bring it back, or apply again."
        )
    try:
        is_as_applied = function_digest(file, reference.qualname, root) == reference.digest
        module = import_file(file, root) if is_as_applied else None
    except Exception as error:  # the user's module may raise anything
        raise DefinitionError(
            f"{file} cannot be imported: {type(error).__name__}: {error}.",
            hint=f"{reference.qualname!r} of it is needed here: install what it imports, or mend it and apply again.",
        ) from error
    if not is_as_applied:
        raise DefinitionError(
            f"The function {reference.qualname!r} in {file}, or what it uses of the project's files, changed since it "
            "was applied.",
            hint="Run `tidemill apply`.",
        )
    return _function_behind(getattr(module, reference.qualname))


def _function_behind(found: Any) -> Any:
    """Feast's decorators put a view in the place of the function that they are given; it keeps the function."""
    return found if callable(found) else getattr(found, "__wrapped__", found)


def import_file(file: Path, root: Path) -> Any:
    """Import a module of the project as it is now; unchanged, it is imported once for each process.

    The module has a private name, which changes with its text and that of the files it imports; those are imported anew
    with it, by their own names.
    """
    place = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
    digest, files = module_text(file, root)
    name = f"_tidemill_user_{digest[:16]}_{place}_{file.stem}"
    with IMPORTING:
        if name not in sys.modules:
            with _own_modules(files, root):
                _execute(file, name)
        return sys.modules[name]


def _execute(file: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, file, loader=_FromSource(name, str(file)))
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{file} cannot be imported as a Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


@contextmanager
def _own_modules(files: set[Path], root: Path) -> Iterator[None]:
    """The project's folder first on the path, and nothing remembered of these files, nor found under their names."""
    root = root.resolve()
    names = {name for file in files for name in _module_names(file.relative_to(root))}
    hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        sys.modules.update({name: module for name, module in hidden.items() if not _is_below(module, root)})


def _module_names(file: Path) -> list[str]:
    """The names of a file's module and the packages around it."""
    parts = file.parent.parts if file.stem == "__init__" else file.with_suffix("").parts
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _is_below(module: ModuleType, root: Path) -> bool:
    places = [module.__file__] if getattr(module, "__file__", None) else list(getattr(module, "__path__", ()))
    return any(Path(place).resolve().is_relative_to(root) for place in places if place)


class _FromSource(SourceFileLoader):
    """Runs what the file says now. Python's cache of compiled files takes an edit of the same second for no edit."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - Python calls it so
        return self.source_to_code(self.get_data(self.path), self.path)
