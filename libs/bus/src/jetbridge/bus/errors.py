"""What can go wrong on the bus. The class says whether trying again can help."""

from __future__ import annotations


class BusError(Exception):
    """Base of all errors of this package."""


class BusUnavailableError(BusError):
    """NATS or JetStream did not answer in time. Trying again can help."""


class TopologyError(BusError):
    """A stream or bucket is missing or not as declared. ``jetbridge bus apply`` helps, a retry does not."""


class ConflictError(BusError):
    """Somebody else changed the record first. Read it again and decide anew."""


class LeaseLostError(BusError):
    """The lease is not held by this agent any more, or never was. Trying again does not help."""


class NameTakenError(BusError):
    """An agent's name belongs to somebody else's token. Trying again does not help until that one is dead."""
