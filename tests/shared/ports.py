"""Ports for the servers that tests start."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_FIRST, _LAST = 20_000, 32_767
_RANGE_OF_CONNECTIONS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_chance = random.SystemRandom()  # not the module's own: property tests seed that, and all processes alike
_given: dict[int, socket.socket] = {}
"""What was given, and by which socket this process holds it: UDP has ports of its own, of which nobody asks any."""


def free_port(*, and_above: int = 0) -> int:
    """A port of 127.0.0.1 on which nobody listens, and which no connection is given before a server listens there.

    The system picks the ports of outgoing connections from a range of its own. One that it calls free is soon taken
    by a connection of another test, of which some open thousands; so this one is from below that range. No other
    process of tests is given it while this one lives. With `and_above` the same goes for the port that far above,
    as a member of a Redis Cluster has one for its bus.
    """
    for port in _chance.sample(range(_FIRST, _below_connections() - and_above), 1_000):
        if all(_is_free(each) and _claim(each) for each in {port, port + and_above}):
            return port
    raise AssertionError("None of a thousand ports is free.")


def _below_connections() -> int:
    try:
        first = int(_RANGE_OF_CONNECTIONS.read_text().split()[0])
    except (OSError, ValueError):
        return _LAST
    return first if _FIRST + 2_000 < first <= _LAST else _LAST


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _claim(port: int) -> bool:
    if port in _given:
        return False
    claim = socket.socket(type=socket.SOCK_DGRAM)
    try:
        claim.bind(("127.0.0.1", port))
    except OSError:
        claim.close()
        return False
    _given[port] = claim
    return True
