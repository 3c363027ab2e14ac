"""Worker agent: leases work, runs it in forks of a warm process, reports."""
