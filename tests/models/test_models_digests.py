"""Digests of files are read from the cache only while the file is the same."""

import hashlib
import os

import pytest

from mig_jax.models.checkpoints import digests
from mig_jax.models.checkpoints.digests import sha256_file


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    os.utime(path, ns=(10**18, 10**18))
    return path


def _expected(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def test_a_known_file_is_not_read_again(file, tmp_path, monkeypatch):
    assert sha256_file(file, tmp_path / "cache") == _expected(b"weights")
    monkeypatch.setattr(digests, "_read", None)
    assert sha256_file(file, tmp_path / "cache") == _expected(b"weights")


@pytest.mark.parametrize("change", ["size", "time", "file"])
def test_a_file_that_changed_is_read(file, tmp_path, change):
    sha256_file(file, tmp_path / "cache")
    if change == "size":
        file.write_bytes(b"other weights")
        os.utime(file, ns=(10**18, 10**18))
    elif change == "time":
        file.write_bytes(b"Weights")
        os.utime(file, ns=(10**18 + 1, 10**18 + 1))
    else:  # another file of equal size and time under the same name
        other = tmp_path / "other"
        other.write_bytes(b"Weights")
        os.utime(other, ns=(10**18, 10**18))
        other.replace(file)
    assert sha256_file(file, tmp_path / "cache") == _expected(file.read_bytes())


def test_a_file_just_written_is_not_remembered(file, tmp_path):
    """A second write within one tick of the disk's clock would not show in the identity."""
    os.utime(file)
    sha256_file(file, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_damaged_entry_is_made_again(file, tmp_path):
    sha256_file(file, tmp_path / "cache")
    [entry] = (tmp_path / "cache" / "digests").iterdir()
    entry.write_text("half of")
    assert sha256_file(file, tmp_path / "cache") == _expected(b"weights")
    assert entry.read_text() == _expected(b"weights")


def test_a_folder_that_cannot_be_made_costs_the_entry_only(file, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert sha256_file(file, tmp_path / "cache") == _expected(b"weights")
