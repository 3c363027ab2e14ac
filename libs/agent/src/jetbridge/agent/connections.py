"""What holds for every connection of an agent to its gateway, whichever library makes it."""

IDLE_CONNECTION_SECONDS = 55.0
"""
How long an idle connection is kept. A TLS handshake costs the gateway more than a heartbeat, so longer than
the longest time between two of them that makes sense; shorter than the usual 60 s of proxies.
"""
