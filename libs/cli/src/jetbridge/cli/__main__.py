"""``python -m jetbridge.cli`` is ``jetbridge``."""

from jetbridge.cli.main import main

raise SystemExit(main())
