"""How Airflow's own client of the Execution API gets the agent's TLS files: by Airflow's configuration."""

from __future__ import annotations

from pathlib import Path


def tls_environment(ca_file: Path | None, client_cert: tuple[Path, Path] | None) -> dict[str, str]:
    """Return variables for Airflow 3.3's ``[api] ssl_ca_file``, ``client_ssl_cert``, ``client_ssl_key``."""
    environment = {}
    if ca_file is not None:
        environment["AIRFLOW__API__SSL_CA_FILE"] = str(ca_file)
    if client_cert is not None:
        certificate, key = client_cert
        environment["AIRFLOW__API__CLIENT_SSL_CERT"] = str(certificate)
        environment["AIRFLOW__API__CLIENT_SSL_KEY"] = str(key)
    return environment
