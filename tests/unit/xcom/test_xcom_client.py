"""Where the keys come from, and whose connection it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jetbridge.xcom.client import CheckedProvider, NoCredentialsError, credentials
from jetbridge.xcom.settings import ObjectStoreSettings
from jetbridge.xcom.store import ObjectStore

ENDPOINT = "http://s3.example"


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "JETBRIDGE_OBJECT_STORE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_keys_of_the_settings_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-aws")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    given = ObjectStoreSettings.model_validate(
        {"endpoint_url": ENDPOINT, "access_key": "given", "secret_key": "secret"}
    )
    found = credentials(given).retrieve()
    assert (found.access_key, found.secret_key) == ("given", "secret")


def test_keys_in_files_are_read_again_after_a_rotation(tmp_path: Path) -> None:
    access, secret = tmp_path / "access", tmp_path / "secret"
    access.write_text("one\n")
    secret.write_text("first\n")
    provider = credentials(
        ObjectStoreSettings(endpoint_url=ENDPOINT, access_key_file=access, secret_key_file=secret)
    )
    assert provider.retrieve().secret_key == "first"
    secret.write_text("second\n")
    assert provider.retrieve().secret_key == "second"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    settings = ObjectStoreSettings(endpoint_url=ENDPOINT, access_key_file=missing, secret_key_file=missing)
    with pytest.raises(NoCredentialsError, match="nowhere"):
        CheckedProvider(credentials(settings)).retrieve()


def test_without_keys_the_aws_chain_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-aws")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    assert credentials(ObjectStoreSettings(endpoint_url=ENDPOINT)).retrieve().access_key == "from-aws"


def test_the_shared_credentials_file_is_part_of_the_chain(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = from-file\naws_secret_access_key = s\n"
    )
    assert credentials(ObjectStoreSettings(endpoint_url=ENDPOINT)).retrieve().access_key == "from-file"


def test_each_process_has_its_own_client() -> None:
    store = ObjectStore(ObjectStoreSettings(endpoint_url=ENDPOINT), "bucket")
    parents = store._connection
    assert store._connection is parents
    child = os.fork()
    if child == 0:  # the child only compares and leaves: pytest must not run on in it
        os._exit(0 if store._connection is not parents else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store._connection is parents
