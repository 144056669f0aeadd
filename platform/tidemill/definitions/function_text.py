"""The text that a function of the user's consists of: itself and whatever of the project's files it uses.

A feature must be computed in training and in serving by the same code, so a digest of that code stands in the catalog.
A digest of the function's file alone would miss a constant that it imports from another one; and it would change with
every definition that happens to stand beside it. So names are followed: from the function to the statements of its
module that bind them, and through imports into other files below the project's folder. What is installed elsewhere is
not followed, and data that is read from files is not seen.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import decode_source
from pathlib import Path

_WHOLE = ""  # in the place of a name: all of a file
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_FEAST = "feast"


def function_digest(file: Path, qualname: str, root: Path) -> str:
    """SHA-256, in hexadecimal, of a top-level function of a file and of all that it uses below `root`.

    Feast's decorators do not count: what they say is in the catalog. Raises SyntaxError or ValueError for a file that
    is no Python.
    """
    return _digest_of(_reached(file, qualname, root.resolve()))


def module_text(file: Path, root: Path) -> tuple[str, set[Path]]:
    """The same for a whole file and all that it imports, with the files this lies in, itself among them."""
    root = root.resolve()
    pieces = _reached(file, _WHOLE, root)
    return _digest_of(pieces), {root / piece.path for piece in pieces}


@dataclass(frozen=True, kw_only=True, order=True)
class _Piece:
    """Some lines of a file, which is named from the project's folder."""

    path: str
    line: int
    text: str


def _digest_of(pieces: set[_Piece]) -> str:
    digest = hashlib.sha256()
    for piece in sorted(pieces):  # by place, but where a piece stands does not count
        digest.update(f"{piece.path}\0{piece.text}\0".encode())
    return digest.hexdigest()


def _reached(file: Path, name: str, root: Path) -> set[_Piece]:
    """Every statement that has a part in what a name of a file stands for."""
    modules: dict[Path, _Module] = {}
    found: set[_Piece] = set()
    open_ends = [(file.resolve(), name)]
    seen = set(open_ends)
    while open_ends:
        place, wanted = open_ends.pop()
        if place not in modules:
            modules[place] = _Module(place, root)
        module = modules[place]
        found |= module.pieces(wanted)
        for further in module.leads_to(wanted):
            if further not in seen:
                seen.add(further)
                open_ends.append(further)
    return found


class _Module:
    """One file of the project, and what its names lead to."""

    def __init__(self, file: Path, root: Path) -> None:
        self._file, self._root = file, root
        source = decode_source(file.read_bytes())
        self._tree = ast.parse(source)
        self._lines = source.splitlines(keepends=True)
        self._path = file.relative_to(root).as_posix()

    def pieces(self, name: str) -> set[_Piece]:
        """The lines that bind a name or change what it stands for."""
        if name == _WHOLE:
            return {_Piece(path=self._path, line=0, text="".join(self._lines))}
        return self._import_lines.get(name, set()) | {
            _Piece(path=self._path, line=first, text="".join(self._lines[first - 1 : last]))
            for statement in self._binding(name)
            for first, last in self._lines_of(statement)
        }

    def leads_to(self, name: str) -> set[tuple[Path, str]]:
        """The files and names that a name of this file uses."""
        if name == _WHOLE:
            return {target for targets in self._imports.values() for target in targets} | self._stars
        used = {
            (self._file, used)
            for statement in self._binding(name)
            for part in self._parts_of(statement)
            for used in _names(part)
        }
        imported = self._imports.get(name, set())
        return used | imported | (set() if imported or self._binding(name) else self._stars)

    def _binding(self, name: str) -> list[ast.stmt]:
        return [statement for statement in self._tree.body if name in _bound_by(statement)]

    def _parts_of(self, statement: ast.stmt) -> list[ast.AST]:
        if not isinstance(statement, _Function):
            return [statement]
        return [*self._decorators(statement), statement.args, *statement.body]

    def _lines_of(self, statement: ast.stmt) -> list[tuple[int, int]]:
        """First and last line of its parts that count."""
        decorators = self._decorators(statement) if isinstance(statement, _Function) else []
        return [(part.lineno, part.end_lineno or part.lineno) for part in (*decorators, statement)]

    def _decorators(self, function: _Function) -> list[ast.expr]:
        return [item for item in function.decorator_list if not any(name in self._of_feast for name in _called(item))]

    @cached_property
    def _imported(self) -> list[tuple[str, ast.Import | ast.ImportFrom, ast.alias]]:
        """Every name that is imported anywhere in the file, and how."""
        return [
            (alias.asname or (alias.name.split(".")[0] if isinstance(node, ast.Import) else alias.name), node, alias)
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        ]

    @cached_property
    def _of_feast(self) -> set[str]:
        """Names that were imported from Feast."""
        return {name for name, node, alias in self._imported if _module_of(node, alias).split(".")[0] == _FEAST}

    @cached_property
    def _import_lines(self) -> dict[str, set[_Piece]]:
        found: dict[str, set[_Piece]] = {}
        for name, node, alias in self._imported:
            level = node.level if isinstance(node, ast.ImportFrom) else 0
            text = f"{'.' * level}{_module_of(node, alias)} {alias.name} {name}"
            found.setdefault(name, set()).add(_Piece(path=self._path, line=node.lineno, text=text))
        return found

    @cached_property
    def _imports(self) -> dict[str, set[tuple[Path, str]]]:
        """Of each name that is imported from the project's files, where it comes from."""
        found: dict[str, set[tuple[Path, str]]] = {}
        for name, node, alias in self._imported:
            found.setdefault(name, set()).update(self._targets(node, alias))
        return {name: targets for name, targets in found.items() if targets and name != "*"}

    @cached_property
    def _stars(self) -> set[tuple[Path, str]]:
        """What `from ... import *` brings, of which nobody can tell what it is: all of it."""
        return {target for name, node, alias in self._imported if name == "*" for target in self._targets(node, alias)}

    def _targets(self, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> set[tuple[Path, str]]:
        if isinstance(node, ast.Import):
            return self._files(alias.name.split("."))
        return self._from(node, _WHOLE if alias.name == "*" else alias.name)

    def _from(self, node: ast.ImportFrom, name: str) -> set[tuple[Path, str]]:
        module = [*self._package(node.level), *(node.module.split(".") if node.module else [])]
        files = self._files(module)
        submodule = self._files([*module, name]) if name else set()
        own = {(file, name) for file, _ in files if file == self._file_of(module)}
        rest = {(file, whole) for file, whole in files if file != self._file_of(module)}
        return own | rest | submodule

    def _package(self, level: int) -> list[str]:
        """The package that a relative import counts from; nothing for an absolute one."""
        folders = self._file.relative_to(self._root).parent.parts
        return [*folders[: len(folders) - level + 1]] if level else []

    def _files(self, module: list[str]) -> set[tuple[Path, str]]:
        """The file of a module, with those that run before it; nothing where it is not of this project."""
        if self._file_of(module) is None:
            return set()
        steps = [self._file_of(module[: length + 1]) for length in range(len(module))]
        return {(file, _WHOLE) for file in steps if file is not None}

    def _file_of(self, module: list[str]) -> Path | None:
        place = self._root.joinpath(*module)
        candidates = (place / "__init__.py", place.with_name(f"{place.name}.py")) if module else ()
        return next((file for file in candidates if file.is_file()), None)


def _module_of(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    return alias.name if isinstance(node, ast.Import) else node.module or ""


def _names(part: ast.AST) -> Iterator[str]:
    """Every name in a piece of code, those of imports included."""
    for node in ast.walk(part):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0]


def _bound_by(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement binds or whose objects it changes, as far as that can be read from it."""
    if isinstance(statement, _Function | ast.ClassDef):
        return {statement.name}
    found = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, _Function | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            found |= _called(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            found |= _called(node.value) if isinstance(node.value.func, ast.Attribute) else set()
    return found


def _called(expression: ast.expr) -> set[str]:
    """The name that an expression such as `a.b(c)[d]` begins with."""
    while isinstance(expression, ast.Attribute | ast.Subscript | ast.Call):
        expression = expression.func if isinstance(expression, ast.Call) else expression.value
    return {expression.id} if isinstance(expression, ast.Name) else set()
