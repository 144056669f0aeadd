"""A page of the documentation is followed word by word, in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from waiting import PATIENCE, PATIENT

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_END = "--- end of block ---"


def follow(page: Path, folder: Path, **environment: str) -> list[str]:
    """Write the files of a page (blocks with a title) below `folder` and run its commands in one shell, in the order
    of the page; returns what each console block printed."""
    script = [f"cd {folder}"]
    for language, title, body in _BLOCK.findall(page.read_text()):
        if title:
            script.append(
                f"mkdir -p {(folder / title).parent}\ncat > {folder / title} <<'END_OF_FILE'\n{body}END_OF_FILE"
            )
        elif language == "console":
            script += [body, f"echo '{_END}'"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(script)],
        cwd=folder,
        env={**inherited, **PATIENT, "PATH": path, "COLUMNS": "200", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return [part.strip() for part in done.stdout.split(_END)]
