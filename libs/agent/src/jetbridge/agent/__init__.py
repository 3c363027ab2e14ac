"""What every agent does: register, heartbeat, poll and retry over HTTPS."""
