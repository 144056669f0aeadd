"""A training that ends anywhere leaves a state from which the next one goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from training_shop import (
    TODAY,
    champion,
    show_folder,
)

from tidemill.models.artifact import ModelArtifact
from tidemill.project import Project
from tidemill_training import train as training
from tidemill_training.models import list_versions
from tidemill_training.registry import Registry
from tidemill_training.train import train


class Killed(BaseException):
    """Ends the process where it is raised, in effect."""


def killed(*_args: object, **_settings: object) -> None:
    raise Killed


def at_reserving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "reserve", killed)


def at_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelArtifact, "save", killed)


def at_completing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "complete", killed)


def at_deploying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_deploy", killed)


def at_mirroring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "mirror_aliases", killed)


@pytest.mark.parametrize("end", [at_reserving, at_saving, at_completing, at_deploying, at_mirroring])
def test_a_training_that_ends_anywhere_leaves_a_state_from_which_the_next_goes_on(
    end: Callable[[pytest.MonkeyPatch], None], shop: Project, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patched:
        end(patched)
        with pytest.raises(Killed):
            train(shop, "order_return")
    for listed in list_versions(shop, "order_return"):
        ModelArtifact.load(show_folder(shop, listed.version))
    assert champion(shop) == (2 if end is at_mirroring else 1)
    following = train(shop, "order_return")
    assert following.promoted
    assert following.version > 1
    expected = {"champion": following.version, "challenger": following.version}
    assert Registry(shop).aliases("order_return") == expected


KILL = """
import os, signal, sys
from datetime import datetime, UTC
import tidemill
from tidemill.clock import ManualClock
from tidemill.models.artifact import ModelArtifact
from tidemill_training.train import train

ModelArtifact.test_predictions  # the class that save belongs to
def die(*_, **__):
    (project.state / "models" / "order_return" / ".2.halfway").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
ModelArtifact.save = die
project = tidemill.open(sys.argv[1], clock=ManualClock(datetime.fromisoformat(sys.argv[2])))
train(project, "order_return")
"""


def test_a_training_that_is_killed_gives_its_lock_back_and_what_it_left_is_cleaned_up(shop: Project):
    command = [sys.executable, "-c", KILL, str(shop.root), TODAY.isoformat()]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert champion(shop) == 1
    assert train(shop, "order_return").version == 3
    names = {item.name for item in (shop.state / "models" / "order_return").iterdir()}
    assert names == {"1", "3", ".lock"}
