"""HTTPS Remote Execution API between the agents' polls and the bus."""
