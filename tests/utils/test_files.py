"""Directories and files are whole or absent."""

import json
import os

import pytest

from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import join, names, read_bytes, read_json, size, staged, write_json, write_text

MARK = "done.txt"


def finished(directory, text="first"):
    """A directory as a command leaves it."""
    with staged(directory, MARK) as stage:
        (stage / MARK).write_text(text)
        (stage / "inner").mkdir()
        (stage / "inner" / "part").write_text(text)
    return directory


def contents(directory):
    return {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*") if p.is_file()}


def test_staged_appears_whole_at_the_end(tmp_path):
    target = tmp_path / "new" / "deeper" / "out"
    with staged(target, MARK) as stage:
        (stage / MARK).write_text("x")
        assert not target.exists()
        assert stage.parent == target.parent  # the same file system, so the rename is atomic
    assert contents(target) == {MARK: "x"}
    assert [p.name for p in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, UserError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_nothing(tmp_path, error):
    with pytest.raises(error), staged(tmp_path / "out", MARK) as stage:
        (stage / MARK).write_text("x")
        raise error("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_the_previous_version(tmp_path):
    out = finished(tmp_path / "out")
    with pytest.raises(RuntimeError), staged(out, MARK) as stage:
        (stage / MARK).write_text("second")
        raise RuntimeError("stop")
    assert contents(out) == {MARK: "first", "inner/part": "first"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_directory_with_the_marker_is_replaced(tmp_path):
    out = finished(tmp_path / "out")
    with staged(out, MARK) as stage:
        (stage / MARK).write_text("second")
        assert contents(out)[MARK] == "first"  # readers see the previous version until the end
    assert contents(out) == {MARK: "second"}  # and nothing of it afterwards
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_empty_directory_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    assert contents(finished(tmp_path / "out"))[MARK] == "first"


def test_a_relative_directory_is_meant_from_where_the_command_started(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with staged("out", MARK) as stage:
        (stage / MARK).write_text("x")
        os.chdir("elsewhere")
    assert (tmp_path / "out" / MARK).exists()


def test_a_foreign_directory_is_refused_and_untouched(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    with pytest.raises(UserError, match=r"photos is not empty .*no done.txt.*Received: .*cat.jpg"):
        finished(tmp_path / "photos")
    assert contents(tmp_path) == {"photos/cat.jpg": "meow"}


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="must be a directory. Received: a file"):
        finished(tmp_path / "file")
    with pytest.raises(UserError, match="cannot be created"):
        finished(tmp_path / "file" / "below")
    assert contents(tmp_path) == {"file": "mine"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), {"a": [1, {"b": float("nan")}]}])
def test_write_json_refuses_what_json_cannot_say(tmp_path, value):
    write_json(tmp_path / "x.json", {"before": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert read_json(tmp_path / "x.json") == {"before": 1}


def test_json_round_trip_is_strict_json(tmp_path):
    value = {"third": 1 / 3, "none": None, "text": "Zürich\n\"快手\"", "list": [1, 2**53 - 1], "deep": {"a": {}}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == value
    assert text.endswith("\n")


def test_write_text_replaces_and_leaves_no_other_file(tmp_path):
    write_text(tmp_path / "a.txt", "längere Zeile")
    write_text(tmp_path / "a.txt", "b")
    assert contents(tmp_path) == {"a.txt": "b"}


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe{}", b"{'a': 1}"])
def test_read_json_names_a_broken_file(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json must be a JSON file. Received"):
        read_json(tmp_path / "x.json")


def test_read_json_names_an_absent_file(tmp_path):
    with pytest.raises(UserError, match=r"x\.json does not exist"):
        read_json(tmp_path / "x.json")


def test_what_is_read_may_be_remote(tmp_path):
    import tensorflow as tf

    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.json").write_bytes(b'{"a": "\xc3\xa9"}')
    (tmp_path / "empty").write_bytes(b"")
    tf.io.gfile.makedirs("ram://files/deep")
    for name, content in (("deep/x.json", b'{"a": "\xc3\xa9"}'), ("empty", b"")):
        with tf.io.gfile.GFile(f"ram://files/{name}", "wb") as file:
            file.write(content)
    for home in (tmp_path, str(tmp_path), "ram://files"):
        assert join(home, "deep", "x.json") == f"{home}/deep/x.json"
        assert names(home) == ["deep", "empty"] and names(join(home, "deep")) == ["x.json"]
        assert read_json(join(home, "deep", "x.json")) == {"a": "é"}
        assert (read_bytes(join(home, "empty")), size(join(home, "empty"))) == (b"", 0)
        assert (size(join(home, "deep", "x.json")), size(join(home, "absent"))) == (12 - 1, -1)
        with pytest.raises(UserError, match=f"{home}/absent cannot be read. Received"):
            read_bytes(join(home, "absent"))
        with pytest.raises(UserError, match=f"{home}/absent cannot be listed. Received"):
            names(join(home, "absent"))
        with pytest.raises(UserError, match=f"{home}/absent does not exist"):
            read_json(join(home, "absent"))
        with pytest.raises(UserError, match=f"{home}/empty must be a JSON file"):
            read_json(join(home, "empty"))
