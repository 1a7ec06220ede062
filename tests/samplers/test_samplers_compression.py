"""A row tried on a copy of the compressor weighs what zlib.compress gives for the whole list."""

import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sampler_tasks import golden_task

from mig_jax.samplers.compression import Prefix, Records


def recompressed(records: list) -> float:
    """g(X) as the paper writes it."""
    text = str(records).encode()
    return len(text) / len(zlib.compress(text, 9))


def check(rows: list, appended: int) -> None:
    """The first rows appended one after the other; the ratio of every row after each."""
    with ThreadPoolExecutor(2) as threads:
        prefix = Prefix(Records(repr(row) for row in rows), threads)
        for done in range(appended + 1):
            expected = [recompressed([*rows[:done], row]) for row in rows]
            np.testing.assert_array_equal(prefix.ratios(np.arange(len(rows))), expected)
            prefix.append(done)


def test_of_odd_texts():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, 35_000).astype(np.uint8).tobytes().decode("latin-1")
    rows = [
        {},
        {"value": ""},
        {"value": 'It\'s "both" quotes'},
        {"value": "\x00\x01\n\t\\\x7f"},
        {"value": "你好, мир, 😀 naïve"},
        {"value": "half \ud800 of a pair"},
        {"value": "again and again " * 2500},
        {"value": noise},
        {"value": noise[:9_000]},
        {"value": None, "n": 1.5, "list": [True, "x"]},
    ]
    check(rows, 9)


@pytest.mark.parametrize("seed", range(3))
def test_of_random_lengths_beyond_the_window(seed):
    """Lengths about 16 K symbols (zlib's block) and 32 KB (its window), some repeating what lies before, some noise."""
    rng = np.random.default_rng(seed)
    words = np.array(["alpha", "beta", "gamma", "delta", "epsilon", "中文", "\n", "'"])
    rows = []
    for length in rng.choice([1, 100, 3000, 8191, 16384, 32768, 40000], 8):
        kind = rng.integers(3)
        letters = rng.integers(33, 127, length).astype(np.uint8).tobytes().decode()
        text = letters if kind == 0 else " ".join(rng.choice(words, length // 5)) if kind == 1 else letters[:50] * 200
        rows.append({"value": text})
    check(rows, 7)


def test_of_real_rows(shared):
    """Prefixes of 0 to 190 KB."""
    _, task = golden_task(shared)
    rows = [{"conversations": turns} for turns in task.rows.dialogs(np.arange(150))]
    tried = np.random.default_rng(0).permutation(len(rows))
    with ThreadPoolExecutor(2) as threads:
        prefix = Prefix(Records(map(repr, rows)), threads)
        for done in range(len(rows)):
            if done % 30 == 0 or done == len(rows) - 1:
                few = tried[done % 7 :: 14]
                expected = [recompressed([*rows[:done], rows[row]]) for row in few]
                np.testing.assert_array_equal(prefix.ratios(few), expected)
            prefix.append(done)


def test_threads_change_nothing():
    rows = [{"value": f"{i} " * (i % 40)} for i in range(200)]
    found = []
    for count in (1, 2, 3):
        with ThreadPoolExecutor(count) as threads:
            prefix = Prefix(Records(map(repr, rows)), threads)
            prefix.append(7)
            found.append(prefix.ratios(np.arange(200)[::-1]))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    with ThreadPoolExecutor(1) as threads:
        assert Prefix(Records(["{}"]), threads).ratios(np.zeros(0, np.int64)).shape == (0,)
