"""
What every scenario of tests/chaos is made of. ``tests/chaos/README.md`` says how to add one.

* ``marks``: what tasks wrote while they ran, and the checker that proves from it what must never happen.
* ``burst``: one run of many tasks, from its trigger to the proof. ``world``: the stack all scenarios share.
* ``faults``: what can be broken. ``recovery``: how long it took, as a table. ``wallclock``: stepping a clock.
"""
