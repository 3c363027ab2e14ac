"""
Dag processing, the plane's side: what Dag processor agents found, written by Airflow's own functions.

* ``operations``: the requests ``rpc.dag-processing.*``, bound to a database.
* ``manager``: Airflow's Dag file processor manager, of which only the hooks that touch the database run.
* ``bundles``: Airflow's bundle manager, configured with what agents declare.
* ``results``: parsing results taken apart and written. ``source_code``: what the UI's Code tab shows.
* ``jobs``: the agents' health, as Airflow shows it.
* ``callbacks``: callback requests, handed out until somebody says that they ended.
"""
