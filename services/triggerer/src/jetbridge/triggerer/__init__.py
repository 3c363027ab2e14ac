"""
Triggerer agent: runs the triggers of deferred tasks, of asset watchers and of callbacks.

One process and a child. The child is Airflow's trigger runner, an event loop with all triggers and nothing
else: no credential, no database. Its parent is Airflow's supervisor of it, subclassed where Airflow 3.3
offers hooks; a second thread of the parent speaks to the gateway.

* ``main``: the command. ``settings``, ``process`` (the composition root, and the first to import Airflow).
* ``supervisor``, ``runner``, ``trigger_logs``, ``wire``: Airflow's classes, subclassed. Only these and
  ``execution_client`` and ``workloads`` know Airflow's Python interfaces.
* ``network``, ``conversation``, ``calls``: the gateway. ``exchange``, ``outbox``: between the two threads.
"""
