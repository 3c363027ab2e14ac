"""A wrong setting is refused with the variable's name, and no message holds the secret."""

from __future__ import annotations

import pytest

from jetbridge.xcom.errors import ObjectStoreSettingsError
from jetbridge.xcom.settings import ObjectStoreSettings

SECRET = "do-not-print-me"
PREFIX = "JETBRIDGE_OBJECT_STORE_"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}ENDPOINT_URL", "https://s3.example:9000/")
    monkeypatch.setenv(f"{PREFIX}ACCESS_KEY", "key")
    monkeypatch.setenv(f"{PREFIX}SECRET_KEY", SECRET)


def test_defaults() -> None:
    settings = ObjectStoreSettings.load()
    assert settings.endpoint_url == "https://s3.example:9000"
    assert (settings.region, settings.xcom_bucket, settings.logs_bucket) == (
        "us-east-1",
        "jetbridge-xcom",
        "jetbridge-logs",
    )
    assert settings.logs_location == "s3://jetbridge-logs/ at https://s3.example:9000"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENDPOINT_URL", "s3.example:9000"),
        ("ENDPOINT_URL", "https://user:password@s3.example"),
        ("ENDPOINT_URL", "https://s3.example/bucket"),
        ("KEY_PREFIX", "a/../b"),
        ("KEY_PREFIX", "a b"),
        ("PART_SIZE_BYTES", "1024"),
        ("READ_TIMEOUT_SECONDS", "0"),
        ("RETRIES", "1000"),
    ],
)
def test_a_wrong_value_is_named_and_the_secret_is_not(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ObjectStoreSettingsError, match=PREFIX + name) as caught:
        ObjectStoreSettings.load()
    assert SECRET not in repr(caught.value)


def test_half_a_pair_of_keys_is_refused_without_printing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"{PREFIX}ACCESS_KEY")
    with pytest.raises(ObjectStoreSettingsError, match="both of access_key and secret_key") as caught:
        ObjectStoreSettings.load()
    assert SECRET not in repr(caught.value)


def test_the_endpoint_has_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"{PREFIX}ENDPOINT_URL")
    with pytest.raises(ObjectStoreSettingsError, match="ENDPOINT_URL: Field required"):
        ObjectStoreSettings.load()


@pytest.mark.parametrize(("given", "kept"), [("", ""), ("site-a", "site-a/"), ("/a//b/", "a/b/")])
def test_the_prefix_is_a_folder(monkeypatch: pytest.MonkeyPatch, given: str, kept: str) -> None:
    monkeypatch.setenv(f"{PREFIX}KEY_PREFIX", given)
    assert ObjectStoreSettings.load().key_prefix == kept


def test_the_secret_is_in_no_repr() -> None:
    assert SECRET not in repr(ObjectStoreSettings.load())
