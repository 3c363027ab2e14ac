"""
Failover: takes work back from lost agents and has it run elsewhere.

* ``decisions``: what to do with a workload; pure logic. ``rounds``: doing it, level-triggered.
* ``silences``: for how long lost agents have been silent, for leases that wait.
* ``starvation``: which queues nobody serves, and where their work may go; pure logic. ``lanes``: reporting
  and moving it, level-triggered. ``moving``: taking work from one lane into another.
* ``requeue``: asking the bridge to put a task back into Airflow's queue. ``main``: wires it.
"""
