"""A note that a run leaves in Redis beside its values, to find out later whether Redis still has them.

It is written when the values have been acknowledged. What brings a Redis back (its log, a snapshot, a replica that took
over) brings back all that it did up to some moment, so that one that has the note has the values too. It expires when
values that are written with it do, and after a day at most.
"""

from __future__ import annotations

from tidemill.definitions.catalog import Catalog, View
from tidemill.online.resp import RespClient, pack_command
from tidemill.online.tile_layout import project_prefix
from tidemill.online.writer import expiry_seconds

_LONGEST = 86_400  # seconds


def write_note(client: RespClient, catalog: Catalog, view: View, text: str) -> None:
    """Put a view's note in the place of the one before. Raises OnlineStoreUnavailableError."""
    seconds = min(_LONGEST, expiry_seconds(catalog, view) or _LONGEST)
    client.write(pack_command("SET", _key(catalog, view), text, "EX", seconds), 1)


def read_note(client: RespClient, catalog: Catalog, view: View) -> str | None:
    """A view's note, if Redis has one. Raises OnlineStoreUnavailableError."""
    found = client.call("GET", _key(catalog, view))
    return None if found is None else found.decode()


def delete_note(client: RespClient, catalog: Catalog, view: View) -> None:
    """What it says need not hold any longer. Raises OnlineStoreUnavailableError."""
    client.write(pack_command("DEL", _key(catalog, view)), 1)


def _key(catalog: Catalog, view: View) -> str:
    return f"{project_prefix(catalog.project)}run:{view.name}"
