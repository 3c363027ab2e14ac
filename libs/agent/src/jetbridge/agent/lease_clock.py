"""The clock that leases are counted on, by every process of an agent."""

from __future__ import annotations

import time

LEASE_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""
Monotonic and the same for all processes of a machine; and, unlike ``CLOCK_MONOTONIC``, it goes on while the
machine is suspended, as the plane's does. A laptop that slept for an hour has lost its leases.
"""


def lease_time() -> float:
    """Return the time by which leases are counted."""
    return time.clock_gettime(LEASE_CLOCK)
