"""
Failover: takes work back from lost agents and has it run elsewhere.

* ``decisions``: what to do with a workload; pure logic. ``rounds``: doing it, level-triggered.
* ``requeue``: asking the bridge to put a task back into Airflow's queue. ``main``: wires it.
"""
