"""Files that appear whole or not at all."""

import pytest

from mig_jax.core.files import open_atomic, write_atomic


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    with pytest.raises(ZeroDivisionError), open_atomic(path) as file:
        file.write(b"ne")
        raise ZeroDivisionError
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_an_error_names_the_file_itself(tmp_path):
    """Messages of the command line show the name in the error."""
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "gone" / "a.txt", tmp_path / "folder"):
        with pytest.raises(OSError) as error:
            write_atomic(path, "text")
        assert error.value.filename == str(path)
        assert ".tmp" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
