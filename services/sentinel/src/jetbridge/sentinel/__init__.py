"""
Health of agents: on the plane, silence into verdicts; at a site (``site``), what is seen from outside.

* ``silence``: when silence means what; pure logic. ``looking``: reading presence from Redis.
* ``verdicts``: verdicts into health records and events. ``states``: a word for each agent.
* ``plane``: the loop. ``plane_main``: wires it. ``main``: the command line of both.
"""
