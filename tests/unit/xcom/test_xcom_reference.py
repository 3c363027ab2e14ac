"""What counts as a reference, and which references are followed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jetbridge.xcom.errors import BadReferenceError, ForeignReferenceError
from jetbridge.xcom.reference import Reference
from jetbridge.xcom.settings import ObjectStoreSettings
from jetbridge.xcom.store import ObjectStore

SETTINGS = ObjectStoreSettings(endpoint_url="http://s3.example", key_prefix="site-a")
STORE = ObjectStore(SETTINGS, "xcom")
DOCUMENT = {
    "jetbridge.xcom": 1,
    "uri": "s3://xcom/site-a/d/r/t/-1/return_value.0.json",
    "bytes": 2,
    "sha256": "0" * 64,
    "encoding": "identity",
}


def test_a_reference_is_small_plain_json_that_survives_a_round_trip() -> None:
    reference = Reference.find(DOCUMENT)
    assert reference is not None
    assert reference.document() == DOCUMENT
    assert json.loads(json.dumps(reference.document())) == DOCUMENT
    assert reference.key_in(STORE) == "site-a/d/r/t/-1/return_value.0.json"


@pytest.mark.parametrize("value", [None, 1, "s3://xcom/k", [DOCUMENT], {}, {"uri": "s3://xcom/k"}])
def test_ordinary_values_are_no_references(value: Any) -> None:
    assert Reference.find(value) is None


def test_fields_of_later_writers_are_ignored() -> None:
    assert Reference.find({**DOCUMENT, "key_id": "k"}) == Reference.find(DOCUMENT)


@pytest.mark.parametrize(
    "change",
    [
        {"uri": "https://evil.example/x"},
        {"uri": "s3://xcom/"},
        {"uri": None},
        {"bytes": -1},
        {"bytes": "2"},
        {"sha256": "0" * 63},
        {"encoding": "zip"},
    ],
)
def test_a_malformed_reference_is_an_error_and_not_a_value(change: dict[str, Any]) -> None:
    (field,) = change
    with pytest.raises(BadReferenceError, match=field):
        Reference.find({**DOCUMENT, **change})


def test_a_newer_version_says_to_upgrade() -> None:
    with pytest.raises(BadReferenceError, match=r"version is 2.*Upgrade this worker"):
        Reference.find({**DOCUMENT, "jetbridge.xcom": 2})


@pytest.mark.parametrize(
    "uri",
    [
        "s3://other/site-a/k",
        "s3://xcom2/site-a/k",
        "s3://xcom/site-b/k",
        "s3://xcom/site-a-b/k",
        "s3://xcom/site-a/../site-b/k",
        "s3://xcom/site-a/./k",
        "s3://xcom/site-a//k",
        "s3://xcom/site-a/",
    ],
)
def test_a_reference_out_of_bucket_and_prefix_is_refused(uri: str) -> None:
    reference = Reference.find({**DOCUMENT, "uri": uri})
    assert reference is not None
    with pytest.raises(ForeignReferenceError, match=r"s3://xcom/site-a/\*"):
        reference.key_in(STORE)
