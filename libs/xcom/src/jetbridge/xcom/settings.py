"""Where the object store is and how to speak to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from jetbridge.xcom.errors import ObjectStoreSettingsError

MIB = 1024 * 1024


XCOM_BACKEND = "AIRFLOW__CORE__XCOM_BACKEND"


def state_store(inherited: Mapping[str, str]) -> dict[str, str]:
    """
    Return Airflow's setting for the values of task and asset state stores, which go where XCom values go.

    Whoever has another XCom backend in ``inherited`` may have no object store of ours.
    """
    if not inherited.get(XCOM_BACKEND, "jetbridge.xcom.").startswith("jetbridge.xcom."):
        return {}
    return {"AIRFLOW__WORKERS__STATE_STORE_BACKEND": "jetbridge.xcom.state_store.ObjectStoreStateBackend"}


class SecretsCheckSettings(BaseSettings):
    """``JETBRIDGE_SECRETS_*``: how the site's secrets backend is asked whether it answers."""

    model_config = SettingsConfigDict(
        use_attribute_docstrings=True, env_prefix="JETBRIDGE_SECRETS_", extra="ignore", frozen=True
    )

    probe: str = ""
    """
    Name of a connection or variable that the secrets backend has and agents may read. Asked for at start, in
    place of one that nobody has, where a policy or a lookup pattern lets agents at some names alone.
    """


class ObjectStoreSettings(BaseSettings):
    """
    ``JETBRIDGE_OBJECT_STORE_*``.

    Credentials, the first of these that is set: ``access_key`` and ``secret_key``; the files
    ``access_key_file`` and ``secret_key_file``; otherwise what AWS's own tools would find (``AWS_*``
    variables, credentials file, web identity, container or instance role).
    """

    model_config = SettingsConfigDict(
        use_attribute_docstrings=True,
        env_prefix="JETBRIDGE_OBJECT_STORE_",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # the input holds the secret key
    )

    endpoint_url: str
    """``http(s)://host[:port]``. No default: a forgotten setting must not send data to a public cloud."""

    region: str = "us-east-1"
    """Region that requests are signed for."""

    access_key: str | None = None
    """Access key id."""

    secret_key: SecretStr | None = None
    """Secret access key."""

    access_key_file: Path | None = None
    """File with the access key id, read again for each request, so that it can be rotated."""

    secret_key_file: Path | None = None
    """File with the secret access key, likewise."""

    ca_file: Path | None = None
    """PEM file with the authorities to trust instead of the usual ones."""

    xcom_bucket: str = "jetbridge-xcom"
    """Bucket of XCom values; made on demand."""

    logs_bucket: str = "jetbridge-logs"
    """Bucket of task logs; made on demand."""

    key_prefix: str = Field(default="", max_length=256, pattern=r"^[A-Za-z0-9._/=-]*$")
    """Comes before every key, for sites that share a bucket."""

    part_size_bytes: int = Field(default=8 * MIB, ge=5 * MIB, le=5 * 1024 * MIB)
    """
    Larger objects travel in parts of this size, at most two of them in memory.

    S3 allows 5 MiB to 5 GiB and 10,000 parts, so the default reaches 78 GiB.
    """

    connect_timeout_seconds: float = Field(default=5.0, gt=0)
    """Limit of connecting, for each try."""

    read_timeout_seconds: float = Field(default=30.0, gt=0)
    """Limit of waiting for data, for each try."""

    retries: int = Field(default=3, ge=0, le=10)
    """Tries after the first; an address that swallows packets is given up after about 22 s."""

    @field_validator("endpoint_url")
    @classmethod
    def _only_scheme_and_host(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be http(s)://host[:port]")
        if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("must be http(s)://host[:port] without credentials and path; keys have settings")
        return f"{parts.scheme}://{parts.netloc}"

    @field_validator("key_prefix")
    @classmethod
    def _plain_folders(cls, prefix: str) -> str:
        folders = [folder for folder in prefix.split("/") if folder]
        if any(folder.strip(".") == "" for folder in folders):
            raise ValueError("must not contain '.' or '..' as a folder")
        return "".join(f"{folder}/" for folder in folders)

    @model_validator(mode="after")
    def _whole_pairs(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("set both of access_key and secret_key, or neither")
        if (self.access_key_file is None) != (self.secret_key_file is None):
            raise ValueError("set both of access_key_file and secret_key_file, or neither")
        return self

    @classmethod
    def load(cls) -> Self:
        """Read the environment; raises :class:`ObjectStoreSettingsError`, which names the variables."""
        try:
            return cls()
        except ValidationError as exc:
            prefix = cls.model_config.get("env_prefix", "")
            problems = ((prefix + "_".join(map(str, e["loc"])).upper(), e["msg"]) for e in exc.errors())
            text = "; ".join(f"{variable}: {message}" for variable, message in problems)
            raise ObjectStoreSettingsError(text) from None

    @property
    def logs_location(self) -> str:
        """Where task logs end up, for people: ``s3://bucket/prefix at https://host``."""
        return f"s3://{self.logs_bucket}/{self.key_prefix} at {self.endpoint_url}"
