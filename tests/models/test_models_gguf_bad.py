"""GGUF files that cannot be used: whatever is wrong, one UserError that names the file, before a tensor is read."""

import struct

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from tiny_gguf import METADATA, gguf_tensors, huggingface_tensors, tiny_file, write_gguf

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.gguf import open_gguf
from mig_jax.models.checkpoints.gguf_header import read_header


def refused(file) -> str:
    with pytest.raises(UserError) as error:
        open_gguf(file)
    assert str(file) in str(error.value)
    return str(error.value)


@pytest.fixture
def good(tmp_path):
    return tiny_file(tmp_path / "good.gguf")


def written(tmp_path, data: bytes):
    file = tmp_path / "bad.gguf"
    file.write_bytes(data)
    return file


def header(version=3, tensors=0, pairs=0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a GGUF file: it is empty"),
        (b"PK\x03\x04 and more of a zip", "not a GGUF file: begins with b'PK"),
        (b"GG", "not a GGUF file"),
        (b"GGUF", "truncated: its 4 bytes end within version"),
        (header(1), "GGUF version 1; must be version 2 or 3"),
        (header(9), "GGUF version 9"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian GGUF 3"),
        (header(), "general.architecture is None; must be one of llama, qwen2, qwen3"),
        (header(pairs=1) + text(b"a") + struct.pack("<I", 77), "metadata 'a' is of type 77"),
        (header(pairs=1) + text(b"\xff"), "not UTF-8"),
        (header(pairs=2) + 2 * (text(b"a") + struct.pack("<IB", 7, 1)), "metadata 'a' is there twice"),
        (header(pairs=1) + text(b"a") + struct.pack("<IIQ", 9, 9, 1), "metadata 'a' is a list of type 9"),
        (header(pairs=1) + text(b"general.alignment") + struct.pack("<II", 4, 3), "alignment must be a power of two"),
        (header(tensors=1) + text(b"t") + struct.pack("<I", 5), "tensor t has 5 axes"),
        # Lengths that no file has: nothing may be set aside for them.
        (header(pairs=2**60), "truncated"),
        (header(tensors=2**60), "truncated"),
        (header(pairs=1) + struct.pack("<Q", 2**62), "truncated"),
        (header(pairs=1) + text(b"a") + struct.pack("<IIQ", 9, 4, 2**40), "truncated"),
        (header(pairs=1) + text(b"a") + struct.pack("<IIQ", 9, 8, 2**40), "truncated"),
        (
            header(tensors=1) + text(b"t") + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0),
            "1 of 1 tensors are not all there, t the first",
        ),
        (header(tensors=1) + text(b"t") + struct.pack("<IQIQ", 1, 4, 999, 0), "tensor t is of type 999"),
        (header(tensors=1) + text(b"t") + struct.pack("<IQIQ", 1, 0, 0, 0), "tensor t is empty: shape [0]"),
        (header(tensors=1) + text(b"t") + struct.pack("<IQIQ", 1, 33, 8, 0), "no multiple of Q8_0's 32"),
    ],
)
def test_rubbish(tmp_path, data, says):
    assert says in refused(written(tmp_path, data))


def test_no_file(tmp_path):
    assert "No such file" in refused(tmp_path / "x.gguf")
    assert "directory" in refused(tmp_path)


def test_cut_at_any_byte(tmp_path, good):
    """The header ends before the first tensor; the last tensor ends the file."""
    data = good.read_bytes()
    first = min(tensor.start for tensor in read_header(good).tensors)
    cuts = [*range(first + 40), *range(first + 40, len(data), 997), len(data) - 1]
    for cut in cuts:
        assert ("truncated" in refused(written(tmp_path, data[:cut]))) == (cut >= 4), cut
    last = max(read_header(good).tensors, key=lambda tensor: tensor.start)
    cut = written(tmp_path, data[: last.start + last.size - 1])
    assert f"1 of 20 tensors are not all there, {last.name} the first" in refused(cut)
    open_gguf(written(tmp_path, data[: last.start + last.size]))  # without the padding after it


def test_any_byte_changed(tmp_path, good):
    """What a changed byte makes is refused in our words or, where it is as good as the old one, opened."""
    data = good.read_bytes()
    first = min(tensor.start for tensor in read_header(good).tensors)
    rng = np.random.default_rng(11)
    opened = 0
    for at in range(0, first, 3):
        changed = bytearray(data)
        changed[at] ^= int(rng.integers(1, 256))
        try:
            for tensor in open_gguf(written(tmp_path, bytes(changed))).tensors[:2]:
                tensor.read()
            opened += 1
        except UserError as error:
            assert "bad.gguf" in str(error)
    assert 0 < opened < first // 3


def test_all_at_once(tmp_path):
    """Everything that is wrong with one file is in one message."""
    tensors = gguf_tensors(huggingface_tensors(), heads=4)
    for n in range(2):
        tensors[f"blk.{n}.ffn_gate_exps.weight"] = np.zeros((4, 4), np.float32)
    tensors["cls.weight"] = np.zeros((4, 4), np.float32)
    tensors["blk.0.attn_q.weight"] = np.zeros((32, 32), np.float64)
    del tensors["token_embd.weight"]
    said = METADATA | {"rope.scaling.type": "yarn", "expert_count": 8}
    del said["block_count"], said["feed_forward_length"]
    file = write_gguf(tmp_path / "x.gguf", tensors, said)
    file.write_bytes(file.read_bytes()[:-3000])
    lines = refused(file).splitlines()
    for says in (
        "truncated: ",
        "blk.0.attn_q.weight: of type F64, which cannot be unpacked",
        "unexpected tensor blk.N.ffn_gate_exps.weight (2 layers)",
        "unexpected tensor cls.weight",
        "metadata llama.block_count is missing",
        "metadata llama.feed_forward_length is missing",
        "tensor token_embd.weight is missing",
        "llama.expert_count is 8",
        "llama.rope.scaling.type is 'yarn'; must be one of none, linear",
    ):
        assert sum(line.strip().startswith(says) for line in lines) == 1, says
    assert len(lines) == 10


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"attention.value_length": 16}, "llama.attention.value_length is 16; only 8"),
        ({"attention.key_length": 8, "rope.dimension_count": 4}, "llama.rope.dimension_count is 4; only 8"),
        ({"attention.head_count": [4, 2]}, "head_count and head_count_kv must be one whole number"),
        ({"attention.head_count_kv": "two"}, "head_count and head_count_kv must be one whole number"),
    ],
)
def test_metadata_that_cannot_be_run(tmp_path, changed, says):
    assert says in refused(tiny_file(tmp_path / "x.gguf", **changed))


def test_factors_and_scaling(tmp_path):
    tensors = gguf_tensors(huggingface_tensors(), heads=4) | {"rope_freqs.weight": np.ones(4, np.float32)}
    said = METADATA | {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}
    assert "scale the rotations twice" in refused(write_gguf(tmp_path / "x.gguf", tensors, said))


def test_another_architecture(tmp_path):
    file = write_gguf(tmp_path / "x.gguf", gguf_tensors(huggingface_tensors()), architecture="gemma3")
    assert "general.architecture is 'gemma3'; must be one of llama, qwen2, qwen3" in refused(file)


def test_a_name_twice(good, tmp_path):
    data = good.read_bytes()
    assert data.count(b"blk.0.attn_k.weight") == 1
    found = refused(written(tmp_path, data.replace(b"blk.0.attn_k.weight", b"blk.0.attn_v.weight")))
    assert "tensor blk.0.attn_v.weight is there twice" in found


def test_a_missing_part(tmp_path):
    part = tiny_file(tmp_path / "x-00001-of-00003.gguf")
    assert "missing: x-00002-of-00003.gguf, x-00003-of-00003.gguf" in refused(part)
    assert "missing: this part" in refused(tmp_path / "x-00009-of-00000.gguf")


def test_every_type_that_the_package_unpacks_is_taken(tmp_path):
    """And the others are refused by name, so a new type of the package needs no change here."""
    tensors = gguf_tensors(huggingface_tensors(layers=0, hidden=256))
    taken = []
    for kind in Kind:
        rows = np.zeros((2, 256 // gguf.GGML_QUANT_SIZES[kind][0] * gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
        file = write_gguf(tmp_path / "x.gguf", tensors | {"token_embd.weight": (rows, kind)})
        try:
            read = {tensor.key: tensor for tensor in open_gguf(file).tensors}["model.embed_tokens.weight"].read()
        except UserError as error:
            assert f"token_embd.weight: of type {kind.name}, which cannot be unpacked" in str(error)
        else:
            assert read.shape == (2, 256) and read.dtype == np.float32
            taken.append(kind.name)
    assert {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_K", "Q8_0", "Q4_K", "Q6_K"} <= set(taken)
