"""Writes down every address this process and its children connect to, for the test that asks."""

import os
import sys

if path := os.environ.get("CONNECTIONS_FILE"):

    def write_down(event, args):
        if event in {"socket.connect", "sqlite3.connect"}:
            what = args[1] if event == "socket.connect" else args[0]
            with open(path, "a") as file:  # noqa: PTH123 - before anything else is imported
                file.write(f"{event} {what!r}\n")

    sys.addaudithook(write_down)
