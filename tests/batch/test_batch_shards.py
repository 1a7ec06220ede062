"""Shards: whole or not counted, named by their batches, put together in the order of the texts."""

from pathlib import Path

import numpy as np
import pytest
from index_job import DIM, expected, lengths, results_of

from mig_jax.batch import shards as shards_module
from mig_jax.batch.shards import Shards, ShardWriter
from mig_jax.core.progress import silent
from mig_jax.models.inference.packing import plan_batches


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    """Of 40 texts in some batches, one text of no tokens among them."""
    plan = plan_batches(lengths(), max_length=32, batch_tokens=64)
    assert len(plan) >= 8
    return Shards(tmp_path, plan, DIM)


def save(shards: Shards, numbers: list[int], step: int = 1, every: float = 0.0, **more) -> None:
    saver = ShardWriter(shards, step, every, **more)
    for number in numbers:
        saver.add(number, results_of(shards.plan[number]))
    saver.flush()


def names(shards: Shards) -> list[str]:
    return sorted(path.name for path in shards.folder.iterdir())


def test_a_shard_tells_its_batches(shards):
    save(shards, [0, 2, 4, 8], step=2, every=1e9)
    assert names(shards) == ["00000000-00000004-2.npz", "00000008-00000008-2.npz"]  # 6 is left out
    assert np.flatnonzero(shards.saved()).tolist() == [0, 2, 4, 8]
    assert Shards(shards.folder, shards.plan, DIM).saved().sum() == 4
    save(shards, [1, 3], every=0.0)
    assert "00000001-00000001-1.npz" in names(shards)
    assert shards.saved().sum() == 6


def test_a_shard_ends_with_time_or_bytes(shards):
    save(shards, [0, 1, 2, 3], every=1e9, max_bytes=2 * DIM * 4)  # a batch has two texts or more
    assert len(names(shards)) == 4
    save(shards, [4, 5], every=1e9)
    assert len(names(shards)) == 5


def test_a_crash_takes_no_more_than_save_every(shards, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(shards_module.time, "monotonic", lambda: clock[0])
    saver = ShardWriter(shards, 1, 10.0)
    for number in range(8):  # a batch takes 4 s
        clock[0] += 4.0
        saver.add(number, results_of(shards.plan[number]))
        lost = number + 1 - int(shards.saved().sum())
        assert lost * 4.0 < 10.0
    assert names(shards) == ["00000000-00000002-1.npz", "00000003-00000005-1.npz"]


def test_all_together_in_the_order_of_the_texts(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "all.npy"
    assert not shards.assemble(out, 40, silent) and not out.exists()
    last = len(shards.plan) - 1
    save(shards, [*range(1, last + 1, 2)], step=2, every=1e9)
    save(shards, [*range(0, last + 1, 2)], step=2)
    assert shards.assemble(out, 40, silent)
    np.testing.assert_array_equal(np.load(out, mmap_mode="r"), expected())


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "other length", "other dim", "other type", "no archive"])
def test_damage_is_seen_and_computed_again(shards, tmp_path_factory, damage):
    out = tmp_path_factory.mktemp("out") / "all.npy"
    every = list(range(len(shards.plan)))
    save(shards, every)
    file = shards.folder / "00000003-00000003-1.npz"
    whole = file.read_bytes()
    if damage == "flipped":
        file.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    elif damage == "other length":
        values = [np.ones((len(shards.plan[3].text) + 1, DIM), np.float32)]
        shards.write(range(3, 4), values)
    elif damage == "other type":
        shards.write(range(3, 4), [np.ones((len(shards.plan[3].text), DIM), np.float64)])
    elif damage == "other dim":
        values = [np.ones((len(shards.plan[3].text), DIM + 1), np.float32)]
        shards.write(range(3, 4), values)
    else:
        file.write_bytes({"cut": whole[:-30], "empty": b"", "no archive": b"x" * len(whole)}[damage])
    again = Shards(shards.folder, shards.plan, DIM)
    assert np.flatnonzero(~again.saved()).tolist() == [3]
    assert not again.assemble(out, 40, silent)
    save(again, [3])
    assert again.assemble(out, 40, silent)


def test_results_of_any_width(shards, tmp_path_factory):
    """Each text its number, as often as the number says; what is left of the widest is blank."""
    folder, out = tmp_path_factory.mktemp("shards"), tmp_path_factory.mktemp("out") / "all.npy"
    ragged = Shards(folder, shards.plan, None, np.int32, -1)
    saver = ShardWriter(ragged, 1, 1e9)
    for number, batch in enumerate(shards.plan):
        wide = np.full((len(batch.text), int(batch.text.max()) + 1), -1, np.int32)
        for row, text in zip(wide, batch.text.tolist(), strict=True):
            row[:text] = text
        saver.add(number, wide)
    saver.flush()
    assert Shards(folder, shards.plan, None, np.int32, -1).saved().all()
    assert ragged.saved().all() and ragged.assemble(out, 40, silent)
    wanted = [np.where(np.arange(40) < text, text, -1) if text != 7 else np.full(40, -1) for text in range(40)]
    np.testing.assert_array_equal(np.load(out), np.array(wanted, np.int32))


def test_damage_that_only_reading_tells(shards, tmp_path_factory):
    """Its length, its table of contents and its array's header are right."""
    folder, out = tmp_path_factory.mktemp("shards"), tmp_path_factory.mktemp("out") / "all.npy"
    wide = Shards(folder, shards.plan, 50_000)
    for number, batch in enumerate(shards.plan):
        wide.write(range(number, number + 1), [np.full((len(batch.text), 50_000), number, np.float32)])
    file = folder / "00000003-00000003-1.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5_000] + bytes([whole[-5_000] ^ 1]) + whole[-4_999:])
    assert wide.saved().all() and not wide.assemble(out, 40, silent)
    assert np.flatnonzero(~wide.saved()).tolist() == [3] and not file.exists()


FOREIGN = ("a.npz", "00000000-00000001-0.npz", "00000002-00000001-1.npz", "00000000-99999999-1.npz",
           "00000000-00000001-2.npz", ".x.tmp", "failed-1")  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_name_that_fits_no_batches_counts_for_nothing(shards, name):
    save(shards, [0])
    (shards.folder / name).write_bytes((shards.folder / "00000000-00000000-1.npz").read_bytes())
    assert shards.saved().sum() == 1


def test_a_full_disk_leaves_no_half_shard(shards, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        save(shards, [0])
    assert names(shards) == []
