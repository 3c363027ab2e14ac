"""The failover protocol, explored exhaustively. ``explorer`` walks, ``model`` says what may happen."""
