"""Changing who serves, from the dashboard: what `tidemill models` does, done by it in a process of its own.

Serving imports no training code. The command loads the version first, keeps MLflow's aliases in step, and leaves the
reason in the history; a running API takes the change up within a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tidemill.errors import ConflictError, TidemillError

_PATIENCE = 120
# The script `tidemill` may not be on this process's PATH; the module always is.
_COMMAND_LINE = "from tidemill.cli.main import main; main()"


class DeploymentError(TidemillError):
    """The command that changes who serves did not succeed; nothing was changed unless it says so."""


def promote(root: Path, model: str, version: int) -> str:
    """Let a version serve. Returns a sentence for people. Raises DeploymentError."""
    _run(root, "promote", f"{model}@{version}", reason="promoted in the dashboard")
    return f"Version {version} of {model} serves now."


def roll_back(root: Path, model: str) -> str:
    """Go back to the champion before the present one. Returns a sentence for people. Raises DeploymentError."""
    _run(root, "rollback", model, reason="in the dashboard")
    return f"{model} went back to the champion before."


def _run(root: Path, action: str, subject: str, *, reason: str) -> None:
    command = [sys.executable, "-c", _COMMAND_LINE, "models", action, subject]
    command += ["--project", str(root), "--reason", reason, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise ConflictError(
            f"`tidemill models {action} {subject}` has not ended after {_PATIENCE} s.",
            hint="Look at Models again later.",
        ) from None
    if done.returncode:
        raise DeploymentError(_told(done.stdout, done.stderr))


def _told(output: str, errors: str) -> str:
    try:
        document = json.loads(output)
        return " ".join(filter(None, (document["message"], document.get("hint"))))
    except (ValueError, KeyError, TypeError):
        return (errors.strip().splitlines() or ["The command failed and said nothing."])[-1]
