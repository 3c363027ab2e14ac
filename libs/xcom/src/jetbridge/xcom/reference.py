"""
What the plane keeps instead of an XCom value: a small JSON document that says where the value is.

::

    {"jetbridge.xcom": 1, "uri": "s3://jetbridge-xcom/orders/…/return_value.3f….json.gz",
     "bytes": 51234, "sha256": "9f86…", "encoding": "gzip"}

``bytes`` and ``sha256`` are of the object as it is stored, so ``sha256sum`` on the object checks it.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jetbridge.xcom.errors import BadReferenceError, ForeignReferenceError
from jetbridge.xcom.store import ObjectStore

MARKER = "jetbridge.xcom"
VERSION = 1
_SCHEME = "s3://"

Encoding = Literal["identity", "gzip"]


class Reference(BaseModel):
    """A reference of version 1. Unknown fields are ignored, so that later writers may add some."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, validate_by_name=True)

    version: Literal[1] = Field(default=1, alias=MARKER)
    uri: str = Field(pattern=r"^s3://[^/]+/.+$", max_length=2048)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    encoding: Encoding = "identity"

    @classmethod
    def find(cls, value: Any) -> Self | None:
        """
        Return the reference that ``value`` is, or None if it is an ordinary value.

        Raises :class:`BadReferenceError` for a document that has the marker and cannot be used.
        """
        if not isinstance(value, dict) or MARKER not in value:
            return None
        if value[MARKER] != VERSION:
            raise BadReferenceError(
                str(value.get("uri", "no uri"))[:300],
                f"its version is {value[MARKER]!r}, this worker reads version {VERSION}",
            )
        try:
            return cls.model_validate(value)
        except ValidationError as exc:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
            raise BadReferenceError(str(value.get("uri", "no uri"))[:300], problems) from exc

    def document(self) -> dict[str, Any]:
        """Return the JSON document to hand to Airflow."""
        return self.model_dump(by_alias=True)

    def key_in(self, store: ObjectStore) -> str:
        """
        Return the object's key, having made sure that it is in ``store``'s bucket and prefix.

        References come from the plane. Following one anywhere would let whoever controls the plane read
        any bucket the worker's credentials open. Raises :class:`ForeignReferenceError`.
        """
        home = f"{_SCHEME}{store.bucket}/{store.settings.key_prefix}"
        key = self.uri.removeprefix(f"{_SCHEME}{store.bucket}/")
        if not self.uri.startswith(home) or any(part in {"", ".", ".."} for part in key.split("/")):
            raise ForeignReferenceError(self.uri, f"this worker reads {home}*")
        return key
