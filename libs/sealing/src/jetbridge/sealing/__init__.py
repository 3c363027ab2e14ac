"""
Sealed documents: what crosses the boundary and may be read on one side only.

* ``keyring``: keys, envelopes, and the file in which a site keeps its keys. ``cli``: ``jetbridge site-key``.
"""
