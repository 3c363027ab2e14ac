"""
What a workload leaves in the memory of its supervisor, from which the next task would be forked.

A supervisor is used again only after a task that asked it for nothing that is secret. For the task SDK of
Airflow 3.3: messages are named here that leave nothing behind but ids, states, references of XComs and what
is rendered for people to read. Every other, also one that a later Airflow adds, counts as a secret.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow.sdk.execution_time import comms

HARMLESS: tuple[type, ...] = (
    comms.DeleteXCom,
    comms.GetDagRunState,
    comms.GetDRCount,
    comms.GetPrevSuccessfulDagRun,
    comms.GetPreviousTI,
    comms.GetTaskBreadcrumbs,
    comms.GetTaskRescheduleStartDate,
    comms.GetTaskStates,
    comms.GetTICount,
    comms.GetXCom,
    comms.GetXComCount,
    comms.GetXComSequenceItem,
    comms.GetXComSequenceSlice,
    comms.RescheduleTask,
    comms.SetRenderedFields,
    comms.SetRenderedMapIndex,
    comms.SetXCom,
    comms.SkipDownstreamTasks,
    comms.SucceedTask,
    comms.ValidateInletsAndOutlets,
)
"""What a task may have asked its supervisor for, for it to be used again."""


@dataclass
class Residue:
    """What is left of one workload. ``is_known``: it ran where its messages are looked at."""

    is_known: bool = False
    has_secrets: bool = False

    def forget(self) -> None:
        """Begin with the next workload."""
        self.is_known = self.has_secrets = False

    def note(self, message: object) -> None:
        """Take account of what a task asked for."""
        self.has_secrets = self.has_secrets or not isinstance(message, HARMLESS)

    @property
    def is_harmless(self) -> bool:
        """Whether the next task may be forked from here."""
        return self.is_known and not self.has_secrets


left = Residue()
"""That of this process."""
