"""
The servers the system stands on, one small module each.

Each ``start`` looks in the same order: an address in the environment (``JETBRIDGE_TEST_*``), Docker
when a Docker engine answers, an executable on PATH, an executable in a wheel. Whatever it finds, the
result is a real server that nobody else's test talks to, or the one the environment names.
"""
