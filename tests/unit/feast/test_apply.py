"""Plan and apply: what changes, what has to be loaded again, what breaks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from feast import FeatureStore
from feast.infra.registry.sql import SqlRegistry
from processes import together

import tidemill
from tidemill.errors import DefinitionError, NotAppliedError
from tidemill.feast.apply import apply, plan
from tidemill.project import Project

Write = Callable[..., Path]
Opened = Callable[[Path], Project]
AT = datetime(2024, 3, 5, tzinfo=UTC)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens projects that are closed at the end of the test."""
    with ExitStack() as projects:
        yield lambda root: projects.enter_context(closing(tidemill.open(root)))


@contextmanager
def registered(root: Path) -> Iterator[FeatureStore]:
    """What Feast knows of the repository."""
    store = FeatureStore(repo_path=str(root))
    yield store
    assert isinstance(store.registry, SqlRegistry)
    store.registry.write_engine.dispose()


def test_a_plan_changes_nothing(write_repository: Write, opened: Opened) -> None:
    project = opened(write_repository())
    found = plan(project)

    assert "add feature view profile: load its online data with `tidemill materialize`" in found.lines
    assert set(found.rebuild) == {"profile", "spending"}
    with pytest.raises(NotAppliedError):
        _ = project.catalog
    assert not (project.root / ".tidemill" / "registry.db").exists()


def test_apply_puts_the_catalog_in_force_and_tells_feast(write_repository: Write, opened: Opened) -> None:
    project = opened(write_repository())
    result = apply(project, at=AT)

    assert result.version == 1
    assert project.catalog.digest == result.digest
    with registered(project.root) as store:
        assert {view.name for view in store.list_stream_feature_views()} == {"spending"}
    assert plan(project).lines == ("Nothing would change.",)


def test_the_same_definitions_again_keep_their_version(write_repository: Write, opened: Opened) -> None:
    project = opened(write_repository())

    assert [apply(project, at=AT).version, apply(project, at=AT).version] == [1, 1]


@pytest.mark.parametrize(
    ("old", "new", "loaded"),
    [
        ('dtype=String), Field(name="age"', 'dtype=Int64), Field(name="age"', None),
        ("days=30", "days=31", AT),
    ],
)
def test_a_view_whose_stored_values_change_is_loaded_again_from_the_beginning(
    write_repository: Write, old: str, new: str, loaded: datetime | None, opened: Opened
) -> None:
    project = opened(write_repository())
    apply(project, at=AT)
    claim = project.ledger.claim("profile", start=None, end=AT, at=AT)
    assert claim is not None
    project.ledger.succeed(claim, cutoff=AT, rows_read=1, rows_written=1, rows_skipped=0, at=AT)
    write_repository((old, new))
    apply(project, at=AT)

    assert project.ledger.last_cutoff("profile") == loaded
    assert project.ledger.is_redefined("profile") == (loaded is None)
    assert not project.ledger.is_redefined("spending"), "it is new, and nothing of it was there before"
    assert len(project.ledger.cutoffs("profile")[0]) == 1, "what was served until now stays known"


def test_wrong_definitions_change_nothing(write_repository: Write, opened: Opened) -> None:
    root = write_repository()
    project = opened(root)
    before = apply(project, at=AT)
    write_repository(('function="sum"', 'function="som"'))

    with pytest.raises(DefinitionError):
        apply(project, at=AT)
    assert project.catalogs.newest_version() == before.version


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("days=30", "days=31", "change feature view profile (ttl)"),
        ('schedule="5 *', 'schedule="6 *', "change feature view profile (schedule)"),
        ('dtype=String), Field(name="age"', 'dtype=Int64), Field(name="age"', "load its online data again"),
        ("hours=6", "hours=3", "change feature view spending (aggregations): load its online data again"),
        ('timestamp_field="at")\norders', 'timestamp_field="then")\norders', "change source profile_file"),
    ],
)
def test_a_plan_says_what_a_change_costs(
    write_repository: Write, old: str, new: str, line: str, opened: Opened
) -> None:
    root = write_repository()
    project = opened(root)
    apply(project, at=AT)
    write_repository((old, new))
    lines = plan(project).lines

    assert any(line in found for found in lines), lines
    if "ttl" in line or "schedule" in line:
        assert not plan(project).rebuild


def test_a_model_whose_vector_changes_has_to_be_trained_again(write_repository: Write, opened: Opened) -> None:
    from test_compile import MODEL

    root = write_repository(more=MODEL)
    (root / "estimators.py").write_text("def make():\n    return None\n")
    project = opened(root)
    apply(project, at=AT)
    write_repository(('profile[["age"]]', 'profile[["country"]]'), more=MODEL)
    found = plan(project)

    assert found.breaks == ("buys",)
    assert any("loses profile:age and gains profile:country" in line for line in found.lines)


def test_a_view_that_is_removed_leaves_feasts_registry_and_the_catalog(write_repository: Write, opened: Opened) -> None:
    root = write_repository()
    project = opened(root)
    apply(project, at=AT)
    write_repository(
        ("sources=[basket, profile]", "sources=[basket]"),
        ('features=[profile[["age"]], spending, discounts]', "features=[discounts, profile]"),
        ("spending = StreamFeatureView(", "spending = dict("),
    )
    result = apply(project, at=AT)

    assert result.version == 2
    assert [view.name for view in project.catalog.views] == ["profile"]
    with registered(root) as store:
        assert store.list_stream_feature_views() == []
    assert not project.redis_folder.exists(), "no Redis is started where none was ever used"


APPLY = """
import sys
from datetime import datetime
import tidemill
from tidemill.feast.apply import apply

root, at = sys.argv[1:]
project = tidemill.open(root)
input("ready\\n")
print([apply(project, at=datetime.fromisoformat(at)).version for _ in range(2)])
"""


def test_two_processes_that_apply_at_once_lose_nothing(write_repository: Write) -> None:
    root = write_repository()
    said = together(APPLY, [[str(root), AT.isoformat()]] * 2)

    assert [text.split("\n") for text in said] == [["[1, 1]", ""]] * 2
    with registered(root) as store:
        assert {view.name for view in store.list_feature_views()} == {"profile"}
        assert {service.name for service in store.list_feature_services()} == {"offers_v1"}
    assert sys.modules.get("definitions") is None


def test_a_function_beside_feasts_definitions_is_noted(write_repository: Write, opened: Opened) -> None:
    """It works, but whoever evaluates it has to import Feast."""
    beside = "def discount(inputs):\n    return {'discount': inputs['total']}\n"
    far = apply(opened(write_repository()), at=AT)
    near = apply(opened(write_repository(("from prices import discount\n", beside), name="near")), at=AT)
    assert not far.notes
    assert len(near.notes) == 1
    assert near.notes[0].startswith("definitions.py imports Feast")
    assert near.lines[-1] == f"Note: {near.notes[0]}"


def test_label_views_are_registered_and_noted(write_repository: Write, opened: Opened) -> None:
    labels = (
        "from feast import LabelView\n"
        'judged = LabelView(name="judged", entities=[customer], source=orders, schema='
        '[Field(name="good", dtype=Int64), Field(name="labeler", dtype=String)])\n'
    )
    project = opened(write_repository(more=labels))
    assert apply(project, at=AT).notes[0].startswith("Label views are Feast's alone (judged)")
    with registered(project.root) as store:
        assert [view.name for view in store.list_label_views()] == ["judged"]
