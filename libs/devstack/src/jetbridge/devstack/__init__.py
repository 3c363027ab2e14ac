"""
Real servers and the whole system on one machine, for the demo, the tests and the benchmarks.

* ``processes``: a supervisor of child processes that leaves none behind. ``guard``: its second line
  of defence, a process that cleans up when the supervisor itself was killed.
* ``servers``: NATS, PostgreSQL, Redis and S3, found on this machine or started from wheels.
* ``airflow``, ``plane``, ``agents``: the parts of Jetbridge as processes with their environments.
* ``stack``: all of it together as one context manager. ``demo``: what ``make demo`` shows.
* ``attempts``, ``whereabouts``: what happened, by what Airflow and the object store say.
* ``pytest_plugin``: the servers as session fixtures.
"""
