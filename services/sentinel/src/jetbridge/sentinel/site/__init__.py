"""
The sentinel of a site: sees its agents from outside, and says what it sees.

* ``view``: what is seen now. ``processes``, ``pods``: who sees it. ``checks``: do the backends answer.
* ``deaths``: says to the plane that an agent is gone. ``report``: says everything else. ``calls``: how.
* ``pages``: ``/status``, ``/metrics`` and ``/healthz`` for the site's owner. ``status``: the first, to read.
* ``main``: wires it. ``settings``: what can be decided.
"""
