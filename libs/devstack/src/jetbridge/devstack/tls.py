"""A throw-away certificate authority and one server certificate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """Files in PEM form. ``ca`` is what clients trust; ``key`` stays with the server."""

    ca: Path
    certificate: Path
    key: Path


def make_certificates(directory: Path, *hosts: str) -> Certificates:
    """Make a CA and a certificate for ``hosts`` (names and addresses)."""
    directory.mkdir(parents=True, exist_ok=True)
    files = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    authority = trustme.CA(organization_name="Jetbridge development stack")
    server = authority.issue_cert(*dict.fromkeys(hosts))
    authority.cert_pem.write_to_path(files.ca)
    for index, blob in enumerate(server.cert_chain_pems):
        blob.write_to_path(files.certificate, append=index > 0)
    files.key.touch(mode=0o600)
    server.private_key_pem.write_to_path(files.key)
    return files
