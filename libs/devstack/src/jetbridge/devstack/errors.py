"""The one base error of this package; its text says what to do."""

from __future__ import annotations


class DevStackError(Exception):
    """Something this machine lacks, or a process that did not do what it was started for."""
