"""The jetbridge command: finds the subcommands of whatever is installed beside it."""
