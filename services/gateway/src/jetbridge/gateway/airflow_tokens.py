"""
Tokens for Airflow's Execution API, made as Airflow 3.3's ``JWTGenerator`` makes them.

The source is ``airflow/api_fastapi/auth/tokens.py``; the gateway does not import Airflow, so a test
compares both. A token stands for one task instance (``sub``), with the scope its routes ask for.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
import warnings
from base64 import urlsafe_b64encode
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from jetbridge.gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)

SigningKey = RSAPrivateKey | Ed25519PrivateKey | str
_CACHED = 20_000
_WITHOUT_KID = "not-used"
"""What Airflow writes as ``kid`` when it signs with a shared secret."""


class SigningKeyError(ValueError):
    """The file with Airflow's signing key cannot be used; the text says which and why."""


class AirflowTokens:
    """Mints tokens and keeps each until half its life is over."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Read the signing key; raises :class:`SigningKeyError`."""
        self._key = load_signing_key(settings)
        self._algorithm = _algorithm(settings.airflow_jwt_algorithm, self._key)
        self._kid = settings.airflow_jwt_kid or _kid(self._key)
        self._seconds = settings.airflow_jwt_seconds
        self._fixed: dict[str, Any] = {"scope": "execution"}
        if settings.airflow_jwt_issuer:
            self._fixed["iss"] = settings.airflow_jwt_issuer
        if settings.airflow_jwt_audience:
            self._fixed["aud"] = settings.airflow_jwt_audience
        self._minted: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def token_for(self, workload_id: str) -> str:
        """Return a token for a task instance (or callback) with at least half its life left."""
        token, renew_at = self._minted.get(workload_id, ("", 0.0))
        if time.time() < renew_at:
            return token
        token = self._mint(workload_id)
        self._minted[workload_id] = (token, time.time() + self._seconds / 2)
        self._minted.move_to_end(workload_id)
        if len(self._minted) > _CACHED:
            self._minted.popitem(last=False)
        return token

    def _mint(self, workload_id: str) -> str:
        now = int(time.time())
        claims = {
            "sub": workload_id,
            "jti": uuid.uuid4().hex,
            "nbf": now,
            "exp": int(now + self._seconds),
            "iat": now,
            **self._fixed,
        }
        with warnings.catch_warnings():  # said once, in _algorithm, in words that help
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            return jwt.encode(claims, self._key, self._algorithm, headers={"kid": self._kid})


def load_signing_key(settings: GatewaySettings) -> SigningKey:
    """Return the key of exactly one of the two files the settings name."""
    path = settings.airflow_jwt_private_key_file or settings.airflow_jwt_secret_file
    if path is None:
        raise SigningKeyError("no file with Airflow's signing key is set")
    data = _read(path)
    if settings.airflow_jwt_secret_file:
        return data.decode().strip()
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as exc:
        raise SigningKeyError(f"{path} holds no unencrypted private key in PEM form") from exc
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise SigningKeyError(f"{path} holds a {type(key).__name__}; Airflow signs with RSA or Ed25519")
    return key


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise SigningKeyError(f"{path} with Airflow's signing key cannot be read: {exc.strerror}") from exc
    if not data.strip():
        raise SigningKeyError(f"{path} with Airflow's signing key is empty")
    return data


def _algorithm(configured: str, key: SigningKey) -> str:
    """Return the algorithm as Airflow chooses it: configured, or guessed from the key."""
    if isinstance(key, str) and len(key.encode()) < hashlib.sha512().digest_size:
        log.warning("airflow_jwt.short_secret", advice="set a jwt_secret of at least 64 bytes in Airflow")
    if configured != "GUESS":
        return configured
    if isinstance(key, str):
        return "HS512"
    return "RS256" if isinstance(key, RSAPrivateKey) else "EdDSA"


def _kid(key: SigningKey) -> str:
    """Return the key's id as Airflow derives it: the hash of its public half as a JWK."""
    if isinstance(key, str):
        return _WITHOUT_KID
    text = json.dumps(_public_jwk(key), separators=(",", ":"), sort_keys=True)
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def _public_jwk(key: RSAPrivateKey | Ed25519PrivateKey) -> dict[str, Any]:
    if isinstance(key, RSAPrivateKey):
        return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
