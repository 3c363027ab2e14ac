"""
Dag processor agent: parses Dag bundles where they are and tells the plane what is in them.

Two processes. The agent speaks HTTPS and imports no Airflow. Its child is Airflow's Dag file processor
manager, subclassed at the hooks that Airflow 3.3 has for it (AIP-92), which forks a parser for each file.
Parsers run the Dags' own code, and what they are forked from holds no credential and no database.

* ``main``: the command and the agent's composition root. ``settings``; ``airflow_env``: the child's.
* ``calls``: the gateway's operations. ``leases``: which bundles are this agent's now. ``keeper``: the child,
  kept alive and answered. ``wire``: what the two processes say to each other.
* ``manager_process``: the child's composition root, the first to import Airflow. ``manager``: the subclass,
  with ``plane`` (its questions), ``reporter`` and ``results`` (what is in a file), ``callbacks``, ``parser``
  (a file's process, with limits) and ``execution_client`` (what Dag code may ask Airflow).
"""
