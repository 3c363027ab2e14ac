"""
The bridge: answers requests from the bus with what is in Airflow's metadata database.

Besides Airflow itself, the only code that opens that database. Several replicas may run; NATS gives each
request to one of them.

* ``rpc``: what an operation is, and how bytes become a call and its result an answer.
* ``database``: Airflow's sessions, in a bounded pool of threads. ``errors``: refusals.
* ``waiting``: heartbeats of tasks that nobody can hear and that are waited for.
* ``app``: the composition root. ``settings``, ``metrics``, ``cli`` (``jetbridge bridge``).
* One module of operations for each area, named as the area: ``dag_processing``, ``triggers``.
"""
