from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tidemill.metadata.database import Database
from tidemill.models.deployments import ROLLED_BACK, Deployment, DeploymentRepository, previous_champion

MONDAY = datetime(2013, 10, 7, 6, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.embedded(tmp_path)
    yield database
    database.close()


@pytest.fixture
def deployments(database: Database) -> DeploymentRepository:
    return DeploymentRepository(database, "flights")


def deploy(
    deployments: DeploymentRepository,
    version: int,
    *,
    alias: str = "champion",
    reason: str = "promoted",
    hours: int = 0,
) -> Deployment:
    return deployments.set(
        "arrival_delay",
        alias=alias,
        version=version,
        artifact=f"models/arrival_delay/{version}",
        digest=f"{version:064}",
        reason=reason,
        at=MONDAY + timedelta(hours=hours),
    )


def test_an_alias_that_was_never_set_names_nothing(deployments: DeploymentRepository):
    assert deployments.current("arrival_delay") is None
    assert deployments.newest_number() == 0


def test_the_newest_change_is_in_force(deployments: DeploymentRepository):
    deploy(deployments, 1)
    second = deploy(deployments, 2, hours=1)
    assert deployments.current("arrival_delay") == second
    assert second.changed_at == MONDAY + timedelta(hours=1)
    assert [found.version for found in deployments.history("arrival_delay", "champion")] == [2, 1]


def test_aliases_do_not_touch_each_other(deployments: DeploymentRepository):
    deploy(deployments, 1)
    deploy(deployments, 2, alias="challenger")
    assert deployments.current("arrival_delay").version == 1  # type: ignore[union-attr]
    assert deployments.current("arrival_delay", "challenger").version == 2  # type: ignore[union-attr]
    assert [found.version for found in deployments.champions()] == [1]


def test_naming_the_same_version_again_adds_nothing(deployments: DeploymentRepository):
    first, again = deploy(deployments, 1), deploy(deployments, 1, hours=5)
    assert first == again
    assert deployments.newest_number() == first.number


def test_two_projects_in_one_database_do_not_see_each_other(database: Database, deployments: DeploymentRepository):
    deploy(deployments, 1)
    assert DeploymentRepository(database, "my_flights").current("arrival_delay") is None
    assert DeploymentRepository(database, "my_flights").champions() == []


def test_the_folder_is_found_from_the_projects_root_or_stands_for_itself(deployments: DeploymentRepository):
    assert deploy(deployments, 1).folder(Path("/data")) == Path("/data/models/arrival_delay/1")


def test_rolling_back_goes_to_the_previous_champion_and_then_further(deployments: DeploymentRepository):
    for version in (1, 2, 3):
        deploy(deployments, version)
    seen = []
    while (previous := previous_champion(deployments.history("arrival_delay", "champion"))) is not None:
        current = deployments.current("arrival_delay")
        assert current is not None
        deploy(deployments, previous.version, reason=f"{ROLLED_BACK} {current.version}: worse")
        seen.append(previous.version)
    assert seen == [2, 1]


def test_after_a_rollback_and_a_new_promotion_the_bad_version_is_never_gone_back_to(deployments: DeploymentRepository):
    deploy(deployments, 1)
    deploy(deployments, 2)
    deploy(deployments, 1, reason=f"{ROLLED_BACK} 2")
    deploy(deployments, 3)
    previous = previous_champion(deployments.history("arrival_delay", "champion"))
    assert previous is not None
    assert previous.version == 1
