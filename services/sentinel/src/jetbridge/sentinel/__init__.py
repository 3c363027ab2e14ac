"""
Health of agents: silence into verdicts, on the plane.

* ``silence``: when silence means what; pure logic. ``looking``: reading presence from Redis.
* ``verdicts``: verdicts into health records and events. ``plane``: the loop. ``main``: wires it.
"""
