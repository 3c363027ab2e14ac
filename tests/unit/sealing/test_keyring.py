"""Envelopes open with their key, for their purpose, unchanged, and keys are rotated without a pause."""

import stat

import pytest

from jetbridge.contracts.masking import SEALED
from jetbridge.sealing import carried
from jetbridge.sealing.carried import Carried, Task
from jetbridge.sealing.cli import main
from jetbridge.sealing.keyring import (
    KeyFileError,
    Keyring,
    SealingError,
    SiteKeys,
    UnknownKeyError,
    key_id,
    new_key,
    read_keyring,
)

OLD, NEW = b"o" * 32, b"n" * 32
TASK = Task("dag", "run", "task", 3)


def test_what_was_sealed_is_opened_and_not_in_the_envelope():
    keys = Keyring([OLD])
    envelope = keys.seal(b"the secret", "p")
    assert keys.open(envelope, "p") == b"the secret"
    assert envelope.startswith(f"jb1.{key_id(OLD)}.")
    assert "secret" not in envelope
    assert keys.seal(b"the secret", "p") != envelope


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:],
        lambda text: text[:-8],
        lambda text: text.replace("jb1.", "jb2."),
        lambda text: text[:3],
        lambda text: f"{text}!",
    ],
)
def test_a_changed_envelope_is_refused(change):
    keys = Keyring([OLD])
    with pytest.raises(SealingError):
        keys.open(change(keys.seal(b"x" * 30, "p")), "p")


def test_an_envelope_of_another_purpose_is_refused():
    keys = Keyring([OLD])
    with pytest.raises(SealingError, match="belongs somewhere else"):
        keys.open(keys.seal(b"x", "one task"), "another task")


def test_the_first_key_seals_and_all_open():
    both, new = Keyring([NEW, OLD]), Keyring([NEW])
    old_envelope = Keyring([OLD]).seal(b"x", "p")
    assert both.open(old_envelope, "p") == b"x"
    assert new.open(both.seal(b"x", "p"), "p") == b"x"
    with pytest.raises(UnknownKeyError, match=key_id(OLD)):
        new.open(old_envelope, "p")


def test_no_key_is_in_a_repr_or_an_error(tmp_path):
    file = tmp_path / "key"
    key = new_key()
    file.write_text(f"{key}\nnot base64 at all!\n")
    with pytest.raises(KeyFileError) as error:
        read_keyring(file)
    assert key not in str(error.value)
    assert "line 2" in str(error.value)
    assert "o" * 32 not in repr(Keyring([OLD]))


@pytest.mark.parametrize("content", ["", "# nothing\n", "c2hvcnQ=\n"])
def test_a_file_without_a_whole_key_is_refused(tmp_path, content):
    file = tmp_path / "key"
    file.write_text(content)
    with pytest.raises(KeyFileError, match="site-key create"):
        read_keyring(file)
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_keyring(tmp_path / "missing")


def test_a_rotation_step_by_step(tmp_path, capsys):
    file = tmp_path / "key"
    assert main(["create", str(file)]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert main(["create", str(file)]) == 1, "a key is never overwritten"
    running = SiteKeys(file)
    before = running.seal(b"x", "p")

    assert main(["add", str(file)]) == 0
    assert running.seal(b"x", "p")[:16] == before[:16], "a new key only opens at first"
    elsewhere = SiteKeys(file)

    assert main(["use", str(file)]) == 0
    after = running.seal(b"x", "p")
    assert after[:16] != before[:16]
    assert elsewhere.open(after, "p") == running.open(before, "p") == b"x"
    file.unlink()
    assert running.open(after, "p") == b"x", "what was read counts until there is something new"
    assert len(capsys.readouterr().err) > 0


def test_the_second_half_of_a_task_gets_everything_opened():
    keys = Keyring([NEW])
    stored = {
        **carried.seal(keys, TASK, Carried.NEXT_ARGUMENTS, {"a": [1]}),
        "event": carried.seal(keys, TASK, Carried.EVENT, {"b": 2}),
        "traceback": carried.seal_traceback(keys, TASK, ["one\n", "two\n"]),
    }
    opened = carried.open_next(keys, TASK, stored)
    assert opened == {"a": [1], "event": {"b": 2}, "traceback": ["one\ntwo\n"]}


def test_the_plane_opens_its_own_and_passes_on_the_rest():
    site, plane = Keyring([NEW]), Keyring([OLD])
    stored = {
        **carried.seal(plane, TASK, Carried.NEXT_ARGUMENTS, {"a": 1}),
        "event": carried.seal(site, TASK, Carried.EVENT, {"b": 2}),
    }
    opened = carried.open_next(plane, TASK, stored)
    assert opened["a"] == 1
    assert opened["event"].keys() == {SEALED}


def test_another_tasks_envelope_does_not_open():
    keys = Keyring([NEW])
    stored = carried.seal(keys, TASK, Carried.NEXT_ARGUMENTS, {"a": 1})
    with pytest.raises(SealingError):
        carried.open_next(keys, TASK._replace(map_index=4), stored)


def test_a_long_traceback_fits_the_contract():
    keys = Keyring([NEW])
    lines = carried.seal_traceback(keys, TASK, ["x" * 4000 + "\n"] * 500 + ["the end\n"])
    assert len(lines) <= 200
    assert all(len(line) <= 4096 for line in lines)
    assert carried.open_traceback(keys, TASK, lines)[0].endswith("the end\n")
