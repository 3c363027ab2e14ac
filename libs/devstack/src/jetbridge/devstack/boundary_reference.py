"""
The reference of what may cross the boundary, ``docs/boundary.md``, made from the table itself.

``python -m jetbridge.devstack.boundary_reference > docs/boundary.md``; a test fails when that is overdue.
"""

from __future__ import annotations

import sys

from jetbridge.contracts.audit import AUDIT_SECONDS, ROUTINE_AUDIT_SECONDS
from jetbridge.contracts.boundary import CLASSES, Crossing, DataClass, Handling, To
from jetbridge.contracts.crossings import CROSSINGS

_INTRODUCTION = f"""\
# What crosses the boundary

An execution plane's agents reach the orchestration plane through its gateways and nothing else, so this table
is complete: every class of data, and every operation and field in which data of that class travels. The
gateway enforces it, whatever an agent sends; agents mask and leave out beforehand, so that what is closed
does not even reach the gateway.

```
jetbridge policy set deployment boundary.rendered-fields=open   # or site:NAME, or queue:NAME
jetbridge policy show                                           # what was decided
jetbridge boundary report --since 24h --site paris              # what crossed, was masked, sealed, refused
jetbridge boundary verify --heads heads.json                    # whether the record of it is whole
```

The narrowest scope that says something wins: queue, site, deployment, default. The queue of a trigger is
that of the task that waits for it. A Dag file has tasks of many queues, and a trigger of an asset or a
callback has none: `dag-source`, `dag-docs`, `task-arguments`, import errors and what those triggers send are
decided by site and deployment. A change holds on every gateway within milliseconds; agents hear of it with
the next lease, and what they mask until then stays masked.

Each gateway counts and never quotes: class, outcome, agent, site, operation, count, bytes. It writes a record
every {AUDIT_SECONDS:g} s with what policies decide about and what it refused, every
{ROUTINE_AUDIT_SECONDS:g} s with what always crosses, each chained to the one before by its hash.

**What can be lost of it.** A gateway that ends in order writes everything. One that is killed takes along
what it had counted and not written: what policies decide about and refusals of the last
{AUDIT_SECONDS:g} s, what always crosses of the last {ROUTINE_AUDIT_SECONDS:g} s, and while NATS is away
all of it since then, because the counts are kept in memory. The data itself was masked, sealed or refused all
the same. `verify` names every chain without an end, so none is lost unseen. Writing each count before its
request goes on would close this gap, and make every call of every task wait for NATS.

**Keys of a site.** `jetbridge site-key create FILE` makes one; workers and triggerers get the file
(`JETBRIDGE_AGENT_SITE_KEY_FILE`). Then what a deferred task hands over (arguments of its trigger, payload of
the event, traceback of a failure, what its second half is called with) crosses only as an envelope that the
plane cannot open. Without a key the gateway seals it for the time it is stored and hands it to the triggerer
that holds the trigger.

**Exempt.** Arguments of tasks that start from a trigger and of asset watchers are part of the serialized Dag,
because the plane itself starts those triggers. Events of asset watchers are for the plane to act on.

Made by `python -m jetbridge.devstack.boundary_reference > docs/boundary.md`.
"""


def reference() -> str:
    """Return the whole page."""
    closable = [data for data, rules in CLASSES.items() if rules.closed is not Handling.ALWAYS]
    always = [data for data, rules in CLASSES.items() if rules.closed is Handling.ALWAYS]
    return "\n".join(
        [
            _INTRODUCTION,
            "## Classes that policies open and close\n",
            "| class | what it is | default | when closed |",
            "|---|---|---|---|",
            *(_class_row(data) for data in closable),
            "",
            "## Classes that always cross\n",
            "| class | what it is |",
            "|---|---|",
            *(f"| `{data}` | {CLASSES[data].about} |" for data in always),
            "",
            "## Operations\n",
            "| operation | field | class | to |",
            "|---|---|---|---|",
            *map(_crossing_row, CROSSINGS),
            "",
        ]
    )


def _class_row(data: DataClass) -> str:
    rules = CLASSES[data]
    return f"| `{data}` | {rules.about} | {rules.default} | {rules.closed} |"


def _crossing_row(crossing: Crossing) -> str:
    field = {"": "the whole", "*": "all others"}.get(crossing.field, f"`{crossing.field}`")
    to = "plane" if crossing.to is To.PLANE else "agent"
    return f"| `{crossing.operation}` | {field} | `{crossing.data}` | {to} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
