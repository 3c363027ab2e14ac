"""Each way an S3 server fails becomes the error that says so, whatever the client made of the answer."""

from __future__ import annotations

import pytest
import urllib3
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import MaxRetryError, SSLError

from jetbridge.xcom import errors
from jetbridge.xcom.failures import answer_of, error_for


def s3_error(code: str, status: int = 400) -> S3Error:
    response = urllib3.HTTPResponse(status=status)
    return S3Error(response, code, "message", "/b/k", "id", "host")


def text_xml(code: str, status: int) -> InvalidResponseError:
    return InvalidResponseError(
        status, "text/xml", f"<Error><Code>{code}</Code><Message>why</Message></Error>"
    )


CASES: list[tuple[str, int, type[errors.ObjectStoreError]]] = [
    ("NoSuchBucket", 404, errors.BucketMissingError),
    ("NoSuchKey", 404, errors.ObjectMissingError),
    ("SignatureDoesNotMatch", 403, errors.CredentialsError),
    ("InvalidAccessKeyId", 403, errors.CredentialsError),
    ("RequestTimeTooSkewed", 403, errors.CredentialsError),
    ("AccessDenied", 403, errors.AccessDeniedError),
    ("QuotaExceeded", 403, errors.StoreFullError),
    ("XMinioStorageFull", 507, errors.StoreFullError),
    ("SlowDown", 503, errors.StoreUnavailableError),
    ("SomethingNew", 403, errors.AccessDeniedError),
    ("SomethingNew", 500, errors.StoreUnavailableError),
    ("SomethingNew", 400, errors.ObjectStoreError),
]


@pytest.mark.parametrize(("code", "status", "kind"), CASES)
def test_the_code_decides_and_then_the_status(
    code: str, status: int, kind: type[errors.ObjectStoreError]
) -> None:
    for error in (s3_error(code, status), text_xml(code, status)):
        assert error_for(error) is kind
        assert code in answer_of(error).detail


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.CredentialsError),
        (403, errors.AccessDeniedError),
        (404, errors.ObjectMissingError),
        (507, errors.StoreFullError),
        (502, errors.StoreUnavailableError),
    ],
)
def test_an_answer_without_a_document_is_read_by_its_status(
    status: int, kind: type[errors.ObjectStoreError]
) -> None:
    assert error_for(InvalidResponseError(status, "text/html", "<h1>proxy</h1>")) is kind
    assert error_for(ServerError("failed", status)) is kind


def test_an_unknown_authority_says_which_setting_helps() -> None:
    error = MaxRetryError(urllib3.PoolManager(), "/", SSLError("certificate verify failed"))  # type: ignore[arg-type]
    assert error_for(error) is errors.StoreUnavailableError
    assert "JETBRIDGE_OBJECT_STORE_CA_FILE" in answer_of(error).detail


def all_errors(
    base: type[errors.ObjectStoreError] = errors.ObjectStoreError,
) -> set[type[errors.ObjectStoreError]]:
    return {base}.union(*(all_errors(kind) for kind in base.__subclasses__()))


@pytest.mark.parametrize("kind", sorted(all_errors(), key=lambda kind: kind.__name__))
def test_every_error_says_what_where_why_and_what_to_do(kind: type[errors.ObjectStoreError]) -> None:
    assert (
        str(kind("s3://b/k at http://s3", "why"))
        == f"{kind.what}: s3://b/k at http://s3 (why). {kind.advice}."
    )


def test_only_an_unreachable_store_is_worth_another_try() -> None:
    assert {kind for kind in all_errors() if kind.retryable} == {errors.StoreUnavailableError}
