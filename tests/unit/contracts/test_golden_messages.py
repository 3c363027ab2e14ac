"""Messages as an earlier release wrote them must be readable by this one, for ever."""

from pathlib import Path

import msgspec
import pytest

from jetbridge.contracts.envelope import (
    MalformedMessageError,
    UnknownMessageError,
    open_envelope,
    read_body,
)
from jetbridge.contracts.schema import API, MESSAGES, RECORDS

GOLDEN = Path(__file__).with_name("golden")
BODIES = {body.name(): body for body in MESSAGES}
KEPT = {f"{record.__name__}.v{record.VERSION}": record for record in RECORDS}


def golden(kind: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((GOLDEN / kind).glob("*.json"))}


@pytest.mark.parametrize("name", golden("messages"))
def test_message_decodes_and_keeps_what_it_said(name):
    data = golden("messages")[name].read_bytes()
    envelope = open_envelope(data)
    assert envelope.name == name
    body = read_body(envelope, *MESSAGES)
    written = msgspec.json.decode(envelope.body)
    read = msgspec.json.decode(msgspec.json.encode(body))
    assert {key: value for key, value in read.items() if key in written} == written


@pytest.mark.parametrize("name", golden("records"))
def test_record_decodes(name):
    record = msgspec.json.decode(golden("records")[name].read_bytes(), type=KEPT[name])
    assert record.version == 1


@pytest.mark.parametrize("name", golden("api"))
def test_api_body_decodes(name):
    types = {body.__name__: body for body in API}
    assert msgspec.json.decode(golden("api")[name].read_bytes(), type=types[name])


def test_every_contract_has_a_golden_example():
    assert set(golden("messages")) == set(BODIES)
    assert set(golden("records")) == set(KEPT)
    assert set(golden("api")) == {body.__name__ for body in API}


def test_newer_version_is_an_unknown_name_and_not_a_crash():
    data = golden("messages")["workload.submitted.v1"].read_bytes().replace(b'"version": 1', b'"version": 9')
    with pytest.raises(UnknownMessageError, match=r"workload\.submitted\.v9"):
        read_body(open_envelope(data), *MESSAGES)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b'{"type": 1}', b'{"type": "\xff"}', b"[" * 100_000]
)
def test_bytes_that_are_no_envelope_are_malformed(data):
    with pytest.raises(MalformedMessageError):
        open_envelope(data)


def test_body_that_does_not_fit_its_name_is_malformed():
    data = golden("messages")["workload.finished.v1"].read_bytes().replace(b'"epoch": 7', b'"epoch": "x"')
    with pytest.raises(MalformedMessageError, match="epoch"):
        read_body(open_envelope(data), *MESSAGES)
