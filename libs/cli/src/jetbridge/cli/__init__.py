"""The ``jetbridge`` command: offers the subcommands of whatever is installed beside it."""
