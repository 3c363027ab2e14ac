"""
What may cross the boundary, in one table: every class of data, where it would cross, and its default.

A *class* is what a policy opens or closes, per deployment, site and queue
(``jetbridge policy set queue:etl boundary.rendered-fields=open``). A *crossing* is a field of one operation
in which data of that class travels. The gateway enforces the table; agents obey it beforehand, so that what
is closed does not even reach the gateway. ``docs/boundary.md`` is made from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    """What a policy says about a class."""

    OPEN = "open"
    CLOSED = "closed"


class DataClass(StrEnum):
    """Kinds of data that somebody may not want on the plane, or the plane's that agents may not want."""

    STRUCTURE = "structure"
    STATES = "states"
    REFERENCES = "references"
    AGENT_NOTES = "agent-notes"
    RUN_PARAMETERS = "run-parameters"
    ASSET_EVENTS = "asset-events"
    CONNECTIONS = "connections"
    VARIABLES = "variables"
    XCOM_VALUES = "xcom-values"
    STATE_STORE_VALUES = "state-store-values"
    RENDERED_FIELDS = "rendered-fields"
    TASK_ARGUMENTS = "task-arguments"
    DAG_SOURCE = "dag-source"
    DAG_DOCS = "dag-docs"
    EXCEPTION_TEXT = "exception-text"
    LOG_LINES = "log-lines"
    OPERATOR_LINKS = "operator-links"
    ASSET_EVENT_EXTRA = "asset-event-extra"
    RUN_CONF = "run-conf"
    HUMAN_INPUT = "human-input"
    CONNECTION_TESTS = "connection-tests"
    TRIGGER_DATA = "trigger-data"


class Handling(StrEnum):
    """What becomes of data of a class that is closed."""

    REFUSED = "refused"
    """The request is answered with 422 and the reason; nothing of it goes on."""
    MASKED = "masked"
    """The value is replaced; that there was one can be seen."""
    REFERENCE = "as a reference"
    """Only where the value is may cross, and in the form of the site's own store."""
    SEALED = "sealed"
    """Encrypted: with the site's key by its agents, without one by the gateway for the time it is stored."""
    NOT_SENT = "not sent"
    """No operation has a field for it, and agents leave it out."""
    ALWAYS = "always crosses"
    """The plane could not do its work without; no policy closes it."""


@dataclass(frozen=True, kw_only=True)
class ClassRules:
    """One class: what it is, what holds where no policy says anything, and what closing it means."""

    about: str
    default: Rule
    closed: Handling
    advice: str = ""


CLASSES: dict[DataClass, ClassRules] = {
    DataClass.STRUCTURE: ClassRules(
        about="serialized Dags without arguments, docs and source: ids, dependencies, schedules, paths",
        default=Rule.OPEN,
        closed=Handling.ALWAYS,
    ),
    DataClass.STATES: ClassRules(
        about="states, times, counts, names of agents, process ids, health",
        default=Rule.OPEN,
        closed=Handling.ALWAYS,
    ),
    DataClass.REFERENCES: ClassRules(
        about="where a value is: bucket, key, size and hash of an object; names of variables and connections "
        "that a task asks for",
        default=Rule.OPEN,
        closed=Handling.ALWAYS,
    ),
    DataClass.AGENT_NOTES: ClassRules(
        about="sentences of our own agents about why a process ended, without text of exceptions",
        default=Rule.OPEN,
        closed=Handling.ALWAYS,
    ),
    DataClass.RUN_PARAMETERS: ClassRules(
        about="params of a Dag with their defaults, which the form for a new run shows",
        default=Rule.OPEN,
        closed=Handling.ALWAYS,
    ),
    DataClass.ASSET_EVENTS: ClassRules(
        about="events of asset watchers and callbacks, on which the plane acts",
        default=Rule.OPEN,
        closed=Handling.ALWAYS,
    ),
    DataClass.CONNECTIONS: ClassRules(
        about="connections kept on the plane",
        default=Rule.CLOSED,
        closed=Handling.REFUSED,
        advice="Give the agents a secrets backend of their own ([secrets] backend, or environment variables "
        "AIRFLOW_CONN_…)",
    ),
    DataClass.VARIABLES: ClassRules(
        about="variables kept on the plane, read or written",
        default=Rule.CLOSED,
        closed=Handling.REFUSED,
        advice="Give the agents a secrets backend of their own ([secrets] backend, or environment variables "
        "AIRFLOW_VAR_…)",
    ),
    DataClass.XCOM_VALUES: ClassRules(
        about="values of XComs",
        default=Rule.CLOSED,
        closed=Handling.REFERENCE,
        advice="Use the XCom backend that agents set by default "
        "([core] xcom_backend = jetbridge.xcom.backend.ObjectStoreXComBackend)",
    ),
    DataClass.STATE_STORE_VALUES: ClassRules(
        about="values of the task and asset state stores",
        default=Rule.CLOSED,
        closed=Handling.REFERENCE,
        advice="Use the state store backend that agents set by default ([workers] state_store_backend = "
        "jetbridge.xcom.state_store.ObjectStoreStateBackend)",
    ),
    DataClass.RENDERED_FIELDS: ClassRules(
        about="rendered template fields, and the labels of mapped tasks that are rendered",
        default=Rule.CLOSED,
        closed=Handling.MASKED,
    ),
    DataClass.TASK_ARGUMENTS: ClassRules(
        about="arguments of tasks as written in the Dag (template fields, mapped values, default_args) in "
        "serialized Dags; not those of tasks that start from a trigger",
        default=Rule.CLOSED,
        closed=Handling.MASKED,
        advice="Let the Dag processor mask them, as it does by default",
    ),
    DataClass.DAG_SOURCE: ClassRules(
        about="source of Dag files",
        default=Rule.CLOSED,
        closed=Handling.NOT_SENT,
        advice="Let the Dag processor leave it out, as it does by default",
    ),
    DataClass.DAG_DOCS: ClassRules(
        about="docs of Dags and tasks (doc_md and its relatives)",
        default=Rule.CLOSED,
        closed=Handling.NOT_SENT,
        advice="Let the Dag processor leave them out, as it does by default",
    ),
    DataClass.EXCEPTION_TEXT: ClassRules(
        about="texts of exceptions and lines of source in tracebacks; types and places always cross",
        default=Rule.CLOSED,
        closed=Handling.MASKED,
        advice="Let the Dag processor mask them, as it does by default",
    ),
    DataClass.LOG_LINES: ClassRules(
        about="lines of task logs. Reserved: no operation takes them, so opening it changes nothing",
        default=Rule.CLOSED,
        closed=Handling.NOT_SENT,
    ),
    DataClass.OPERATOR_LINKS: ClassRules(
        about="URLs of operator extra links",
        default=Rule.CLOSED,
        closed=Handling.REFUSED,
        advice="Agents leave them out by default",
    ),
    DataClass.ASSET_EVENT_EXTRA: ClassRules(
        about="extras of asset events that tasks emit", default=Rule.CLOSED, closed=Handling.MASKED
    ),
    DataClass.RUN_CONF: ClassRules(
        about="conf and note of a Dag run that a task triggers",
        default=Rule.CLOSED,
        closed=Handling.REFUSED,
        advice="Leave conf and note empty and hand data over by reference",
    ),
    DataClass.HUMAN_INPUT: ClassRules(
        about="questions that human-in-the-loop tasks put to people",
        default=Rule.CLOSED,
        closed=Handling.REFUSED,
        advice="What people are to read has to cross",
    ),
    DataClass.CONNECTION_TESTS: ClassRules(
        about="connections that somebody tests from the UI, and what the test said",
        default=Rule.CLOSED,
        closed=Handling.REFUSED,
        advice="Test connections where they are",
    ),
    DataClass.TRIGGER_DATA: ClassRules(
        about="arguments of triggers, payloads of their events, and what a deferred task carries over",
        default=Rule.CLOSED,
        closed=Handling.SEALED,
        advice="Give workers and triggerers their site's key (JETBRIDGE_AGENT_SITE_KEY_FILE)",
    ),
}


class To(StrEnum):
    """Where data goes."""

    PLANE = "plane"
    AGENT = "agent"


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """A field of an operation. ``field`` is empty for a whole body, ``*`` for all fields not named."""

    operation: str
    field: str
    data: DataClass
    to: To = To.PLANE


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What holds for somebody: which classes are open."""

    open: frozenset[DataClass]

    def is_open(self, data: DataClass) -> bool:
        """Say whether data of this class may cross as it is."""
        return data in self.open


def decide(rule_of: Callable[[str], str | None]) -> Decision:
    """
    Return what is open, given what policies say about each class (None: nothing).

    A rule this version does not know closes the class: it was written for a newer one.
    """
    return Decision(open=frozenset(data for data in DataClass if _is_open(data, rule_of(data.value))))


def _is_open(data: DataClass, rule: str | None) -> bool:
    rules = CLASSES[data]
    if rules.closed is Handling.ALWAYS:
        return True
    return (rule or rules.default) == Rule.OPEN


def opened_beyond_default(decision: Decision) -> tuple[str, ...]:
    """Return the classes that a policy opened, as agents are told."""
    return tuple(sorted(data.value for data in decision.open if CLASSES[data].closed is not Handling.ALWAYS))


def decision_of(opened: tuple[str, ...]) -> Decision:
    """Return what an agent was told; classes it does not know stay closed."""
    return decide(lambda data: Rule.OPEN if data in opened else Rule.CLOSED)


def check_rule(data: str, rule: str) -> None:
    """Raise ``ValueError`` with what to write instead unless a policy may say ``rule`` about ``data``."""
    closable = sorted(one.value for one, rules in CLASSES.items() if rules.closed is not Handling.ALWAYS)
    if data not in closable:
        raise ValueError(f"nothing is decided about {data!r}; classes of data are {', '.join(closable)}")
    if rule not in set(Rule):
        raise ValueError(f"{data} is {' or '.join(Rule)}, not {rule!r}")


def advice_for(data: DataClass) -> str:
    """Return what somebody can do who was refused data of a class."""
    advice = CLASSES[data].advice
    opening = f"whoever decides about this plane can open it: jetbridge policy set SCOPE boundary.{data}=open"
    return f"{advice}; or {opening}." if advice else f"{opening[0].upper()}{opening[1:]}."
