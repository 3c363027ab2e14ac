"""
Triggers of the metadata database, run by triggerer agents.

Airflow's own functions decide and write (``Trigger.get_sorted_triggers``, ``ids_for_triggerer``,
``submit_event``, ``submit_failure``, ``clean_unused``); what is here connects them to agents that have no
database.

* ``jobs``: an agent's registration, a row of Airflow's ``job`` table as Airflow's own triggerer has.
* ``assignment``: who runs what. ``workloads``: from a trigger's row to what an agent needs to run it.
* ``events``: what became of triggers. ``upkeep``: what nobody asks for: clearing away, ending the lost.
* ``operations``: all of it as requests from the bus.
"""
