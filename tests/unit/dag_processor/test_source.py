"""What is read of a Dag file to be shown on the plane, and what is not, whatever the file turns out to be."""

import os

import pytest

from jetbridge.contracts.dag_processing import MAX_SOURCE_BYTES
from jetbridge.dag_processor.source import read_source


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "secret").write_text("not for the plane")
    folder = tmp_path / "bundle"
    (folder / "sub").mkdir(parents=True)
    return folder


def test_a_plain_file_is_read(bundle):
    (bundle / "sub" / "dag.py").write_text("x = 'ä'\n")
    assert read_source(bundle, "sub/dag.py") == "x = 'ä'\n"


def test_a_bundle_may_be_a_link_and_its_files_links_within(bundle, tmp_path):
    (bundle / "dag.py").write_text("x = 1")
    (bundle / "other.py").symlink_to("dag.py")
    link = tmp_path / "current"
    link.symlink_to(bundle)
    assert read_source(link, "other.py") == "x = 1"


@pytest.mark.parametrize("path", ["../secret", "leads_out.py", "sub/../../secret"])
def test_what_is_outside_of_the_bundle_is_not_read(bundle, path):
    (bundle / "leads_out.py").symlink_to("../secret")
    assert read_source(bundle, path) is None


def test_a_pipe_holds_nobody_up(bundle):
    os.mkfifo(bundle / "pipe.py")
    assert read_source(bundle, "pipe.py") is None


@pytest.mark.parametrize(
    ("content", "is_read"),
    [
        (b"x" * MAX_SOURCE_BYTES, True),
        (b"x" * (MAX_SOURCE_BYTES + 1), False),
        (b"\xff\xfe", False),
        (b"", True),
    ],
    ids=["largest", "larger", "no text", "empty"],
)
def test_only_text_of_moderate_size(bundle, content, is_read):
    (bundle / "dag.py").write_bytes(content)
    assert (read_source(bundle, "dag.py") is not None) == is_read


@pytest.mark.parametrize("path", ["missing.py", "sub", "archive.zip/dag.py"])
def test_what_is_no_file_is_none(bundle, path):
    (bundle / "archive.zip").write_bytes(b"PK")
    assert read_source(bundle, path) is None
