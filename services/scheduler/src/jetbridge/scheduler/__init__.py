"""
What runs inside Airflow on the plane, and hands its work to agents elsewhere.

* ``executor``: ``RemoteExecutor``, set as Airflow's ``[core] executor``. In its service: ``translate``
  (Airflow's workloads as ours), ``outbox`` (on their way), ``held`` (handed over), ``adoption``, ``spans``.
* ``ports``: what the executor needs of the bus. ``link``: that, as a thread of its own, with ``session``
  (the connection), ``handover`` (submitting so that it may be repeated) and ``retry`` (patience).
  ``testing``: the same without a bus.
* ``history``: events of the bus as entries of Airflow's audit log.
* ``logging_config``: set as Airflow's ``[logging] logging_config_class``. ``task_logs``: what the Log tab
  says. ``directory``: which agent is where.
* ``settings``: what can be set.
"""
