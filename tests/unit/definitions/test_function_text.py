"""The digest of a user's function changes with what its answers depend on, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.definitions.function_text import function_digest, module_text

FILES = {
    "functions.py": """
import math
from feast import Field
from feast.on_demand_feature_view import on_demand_feature_view
from decoration import rounded
from constants import SCALE, OTHER
import tables as known_tables
from views.sources import request

LOCAL = 3
TABLE = {}
TABLE["a"] = 1
UNUSED = OTHER

def helper(value):
    return math.floor(value * SCALE) + LOCAL

@on_demand_feature_view(sources=[request], schema=[Field(name="x")])
@rounded
def feature(inputs):
    from lazily import late

    return {"x": [helper(value) + TABLE["a"] + known_tables.MORE + late(value) for value in inputs["x"]]}

def neighbour(inputs):
    return inputs
""",
    "constants.py": "from deeper import BASE\nSCALE = BASE * 2\nOTHER = 5\n",
    "deeper.py": "BASE = 1\nELSE = 2\n",
    "decoration.py": "def rounded(function):\n    return function\n\ndef other():\n    return 1\n",
    "tables.py": "MORE = 1\nLESS = 0\n",
    "lazily.py": "def late(value):\n    return value\n",
    "views/sources.py": "request = object()\n",
    "stranger.py": "A = 1\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def edit(project: Path, file: str, before: str, after: str) -> None:
    text = (project / file).read_text()
    assert before in text
    (project / file).write_text(text.replace(before, after))


def digest(project: Path) -> str:
    return function_digest(project / "functions.py", "feature", project)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        pytest.param("functions.py", "late(value) for", "late(value) + 1 for", id="its own body"),
        pytest.param("functions.py", "+ LOCAL", "- LOCAL", id="a helper"),
        pytest.param("functions.py", "LOCAL = 3", "LOCAL = 4", id="a constant"),
        pytest.param("functions.py", 'TABLE["a"] = 1', 'TABLE["a"] = 2', id="what is put into a table"),
        pytest.param("functions.py", "import SCALE, OTHER", "import OTHER as SCALE, OTHER", id="an import's meaning"),
        pytest.param("functions.py", "import math", "import cmath as math", id="an installed module"),
        pytest.param("functions.py", "@rounded\n", "", id="a decorator of the user's"),
        pytest.param("constants.py", "BASE * 2", "BASE * 3", id="an imported constant"),
        pytest.param("deeper.py", "BASE = 1", "BASE = 2", id="what that is made of"),
        pytest.param("decoration.py", "return function", "return lambda inputs: {}", id="the decorator"),
        pytest.param("tables.py", "MORE = 1", "MORE = 2", id="a module used as a whole"),
        pytest.param("lazily.py", "return value", "return -value", id="a module that is imported when it is called"),
    ],
)
def test_it_changes_with_what_the_function_uses(project: Path, file: str, before: str, after: str) -> None:
    old = digest(project)
    edit(project, file, before, after)
    assert digest(project) != old


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        pytest.param("functions.py", "return inputs\n", "return {}\n", id="a function beside it"),
        pytest.param("functions.py", "UNUSED = OTHER", "UNUSED = 1", id="a constant beside it"),
        pytest.param("functions.py", 'Field(name="x")', 'Field(name="y")', id="what is said to Feast"),
        pytest.param("functions.py", "\nLOCAL = 3", "\n# A comment.\nLOCAL = 3", id="a comment beside it"),
        pytest.param("constants.py", "OTHER = 5", "OTHER = 6", id="a constant it does not import"),
        pytest.param("deeper.py", "ELSE = 2", "ELSE = 3", id="what nobody uses"),
        pytest.param("views/sources.py", "object()", "dict()", id="a source of the view"),
        pytest.param("stranger.py", "A = 1", "A = 2", id="another file"),
    ],
)
def test_it_does_not_change_with_anything_else(project: Path, file: str, before: str, after: str) -> None:
    old = digest(project)
    edit(project, file, before, after)
    assert digest(project) == old


def test_the_folder_of_the_project_does_not_count(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    for name, text in FILES.items():
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_text(text)
    assert digest(other) == digest(project)


def test_a_star_brings_the_whole_of_a_module(project: Path) -> None:
    (project / "starry.py").write_text("from constants import *\n\ndef feature(inputs):\n    return SCALE\n")
    old = function_digest(project / "starry.py", "feature", project)
    edit(project, "constants.py", "OTHER = 5", "OTHER = 6")
    assert function_digest(project / "starry.py", "feature", project) != old


def test_modules_that_import_each_other_come_to_an_end(project: Path) -> None:
    edit(project, "deeper.py", "ELSE = 2", "import constants\nELSE = constants")
    assert {file.name for file in module_text(project / "constants.py", project)[1]} == {"constants.py", "deeper.py"}


def test_a_package_counts_with_the_files_that_run_before_the_module(project: Path) -> None:
    (project / "package/inner").mkdir(parents=True)
    for name in ("package/__init__.py", "package/inner/__init__.py", "package/inner/leaf.py", "package/side.py"):
        (project / name).write_text("VALUE = 1\n")
    edit(project, "package/inner/leaf.py", "VALUE = 1", "from ..side import VALUE")
    (project / "user.py").write_text("from package.inner.leaf import VALUE\n")
    before = module_text(project / "user.py", project)[0]
    for name in ("package/__init__.py", "package/inner/__init__.py", "package/side.py"):
        edit(project, name, "VALUE = 1", "VALUE = 2")
        assert module_text(project / "user.py", project)[0] != before
        edit(project, name, "VALUE = 2", "VALUE = 1")
    assert module_text(project / "user.py", project)[0] == before
