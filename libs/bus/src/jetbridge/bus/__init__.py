"""
NATS JetStream: the one owner of streams and buckets, and the stores kept in them.

* ``topology``: streams, buckets and lane consumers, described once. ``apply``: makes them so, reports drift.
* ``connection``: opens the bus; ``broker``: with FastStream on it. ``settings``: where it is.
* ``workloads``, ``agents``, ``tokens``, ``keys``: records in KV buckets, each with its own rules.
* ``mirror``: a bucket kept in memory by watching it. ``lanes``: pulling work, most urgent band first.
* ``orders``, ``sites``, ``fleet``: what operators want of agents, what sentinels see, and all of it joined.
* ``agents_cli``: ``jetbridge agents``. ``cli``: ``jetbridge bus apply`` and ``jetbridge bus diff``.
"""
