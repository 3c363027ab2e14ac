"""
``make compat``: the example Dags that ship with Airflow, through Airflow alone and through Jetbridge.

* ``corpus``: which Dags those are, and which cannot be compared or run offline, each with the reason.
* ``side``: one of the two systems: parse everything, run what can be run, and take down what came out.
* ``comparison``: the differences between the two, as text. ``command``: the report.
"""
