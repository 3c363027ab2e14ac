"""A file that cannot be imported; it mentions airflow and dag."""

import there_is_no_such_module  # noqa: F401
