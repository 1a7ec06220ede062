"""ZIP against a naive one that compresses everything again, and against the reference's recorded picks."""

import json
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sampler_tasks import golden_task, picked, vectors_task

from mig_jax.core.errors import UserError
from mig_jax.engine import Snapshot
from mig_jax.samplers import Limits, Rows, SamplingTask, find_sampler
from mig_jax.samplers.compression import Prefix, Records
from mig_jax.samplers.limits import NO_MOST

SMALL = {"k1": 12, "k2": 6, "k3": 3, "workers": 2}
ROLES = {"user": "human", "assistant": "gpt"}
Turns = list[tuple[str, str]]


def texts_task(dialogs: list[Turns], raw: list[bytes] | None = None, **changes) -> SamplingTask:
    """Points that are texts alone; ``raw``: their rows, else JSON of the dialogues."""
    lines = raw or [json.dumps({"id": i, "dialogs": turns}).encode() for i, turns in enumerate(dialogs)]
    rows = Rows(lambda points: (lines[p] for p in points), lambda points: (dialogs[p] for p in points))
    return vectors_task(np.ones((len(lines), 1), np.float32), rows=rows, **changes)


def some_dialogs(count: int, seed: int = 0) -> list[Turns]:
    """Sentences of few words, in some rows many; every seventh row repeats another."""
    rng = np.random.default_rng(seed)
    words = [
        "a",
        "bee",
        "sea",
        "deed",
        "eel",
        "effort",
        "gene",
        "hedge",
        "'tis",
        '"quoted"',
        "naïve",
        "中文",
        "\0",
        "\n",
    ]
    dialogs = []
    for i in range(count):
        answer = " ".join(words[k] for k in rng.integers(0, len(words), rng.integers(1, 60)))
        dialogs.append([("user", f"{rng.integers(10**9)} {answer[::-1]}"), ("assistant", answer)])
        if i % 7 == 6:
            dialogs[i] = dialogs[rng.integers(i)]
    return dialogs


def sharegpt(turns: Turns) -> dict:
    return {"conversations": [{"from": ROLES.get(role, role), "value": content} for role, content in turns]}


def g(records: list) -> float:
    text = str(records).encode()
    return len(text) / len(zlib.compress(text, 9))


def naive(
    records: list, n: int, k1: int, k2: int, k3: int, compat: bool = False,
    first: tuple[int, ...] = (), allowed: Callable[[list[int], int], bool] = lambda taken, i: True,
) -> tuple[list[int], list[float]]:  # fmt: skip
    """ZIP as its paper and its code have it, sorting tuples. (points, ratios)."""
    rounded = np.float32 if compat else np.float64
    s = {i: rounded(g([record])) for i, record in enumerate(records)}
    taken, gains = list(first), [g([records[j] for j in first[: i + 1]]) for i in range(len(first))]
    left = set(s) - set(first)
    while len(taken) < n:
        pool = sorted((s[i], i) for i in left if allowed(taken, i))[:k1]
        if not pool:
            break
        pool = [i for _, i in pool]
        if not compat:
            pool.sort()
        for i in pool:
            s[i] = rounded(g([records[j] for j in [*taken, i]]))
        places = sorted((s[i], place) for place, i in enumerate(pool))[:k2]
        final = [pool[place] for _, place in places]
        if not compat:
            final.sort()
        start = len(taken)
        if compat:
            left -= set(final)
        while len(taken) < min(start + k3, n):
            tries = [i for i in final if i not in taken and allowed(taken, i)]
            if not tries:
                break
            ratios = [g([records[j] for j in [*taken[start:], i]]) for i in tries]
            gains.append(min(ratios))
            taken.append(tries[ratios.index(min(ratios))])
        left -= set(taken)
    return taken[:n], gains[:n]


def same(found, expected: tuple[list[int], list[float]]) -> None:
    assert found.points.tolist() == expected[0]
    assert found.gains.tolist() == expected[1]
    assert len(found.why) == len(found)


@pytest.mark.parametrize("compat", [False, True], ids=["ours", "compat"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", [(12, 6, 3), (50, 10, 4), (7, 7, 7), (5, 3, 9), (20, 8, 1)], ids=str)
def test_it_is_the_naive_one(sizes, seed, compat):
    """k1 of more than there is, k3 of more than k2, repeated rows, and n of 1, some and all."""
    dialogs = some_dialogs(24, seed)
    k1, k2, k3 = sizes
    t = texts_task(dialogs)
    records = [json.loads(raw) for raw in t.rows.raw(np.arange(24))] if compat else [*map(sharegpt, dialogs)]
    for n in (1, 10, 24):
        found = picked("zip", t, n, k1=k1, k2=k2, k3=k3, compat=compat)
        same(found, naive(records, n, k1, k2, k3, compat))
    if not compat:
        assert sorted(found.points.tolist()) == list(range(24))
    elif k3 < k2:
        assert len(found) < 24  # those left over never return


def test_what_it_says():
    found = picked("zip", texts_task(some_dialogs(20)), 8, **SMALL)
    assert list(found.why) == ["round 1"] * 3 + ["round 2"] * 3 + ["round 3"] * 2
    assert found.rounds == {"rounds": 3}
    assert found.reason.startswith("compression ratio with the row")
    assert found.notes == ()


def test_record_and_compat_choose_what_is_compressed():
    dialogs = some_dialogs(20)
    raw = [
        json.dumps({"z": "x" * (50 * i), "n": 1.0, "a": None, "b": True, "t": "é\u2028"}).encode() for i in range(20)
    ]
    t = texts_task(dialogs, raw)
    whole = [json.loads(line) for line in raw]
    same(picked("zip", t, 9, **SMALL), naive([*map(sharegpt, dialogs)], 9, 12, 6, 3))
    same(picked("zip", t, 9, **SMALL, record="whole"), naive(whole, 9, 12, 6, 3))
    same(picked("zip", t, 9, **SMALL, compat=True), naive(whole, 9, 12, 6, 3, True))


def test_other_roles_keep_their_names():
    dialogs = [[("system", "be brief"), ("user", f"{i}" * i), ("tool", "42")] for i in range(1, 9)]
    same(picked("zip", texts_task(dialogs), 8, **SMALL), naive([*map(sharegpt, dialogs)], 8, 12, 6, 3))


def test_identical_rows_are_taken_in_file_order():
    t = texts_task([[("user", "same")]] * 9, [b'{"a":1}'] * 9)
    for compat in (False, True):
        assert picked("zip", t, 3, compat=compat).points.tolist() == [0, 1, 2]
    assert picked("zip", t, 9, **SMALL).points.tolist() == list(range(9))


def test_a_smaller_budget_is_a_prefix():
    for compat in (False, True):
        t = texts_task(some_dialogs(24))
        whole = picked("zip", t, 20, **SMALL, compat=compat)
        for n in (1, 3, 4, 11):
            part = picked("zip", t, n, **SMALL, compat=compat)
            np.testing.assert_array_equal(part.points, whole.points[:n])
            assert list(part.why) == list(whole.why[:n])


def test_the_order_of_the_file_does_not_count():
    """With ratios that differ."""
    rng = np.random.default_rng(5)
    dialogs = [[("user", rng.bytes(int(size)).hex())] for size in rng.permutation(np.arange(30, 330, 10))]
    base = picked("zip", texts_task(dialogs), 12, **SMALL)
    assert len(set(base.gains.tolist())) == 12
    order = rng.permutation(len(dialogs))
    moved = picked("zip", texts_task([dialogs[i] for i in order]), 12, **SMALL)
    assert order[moved.points].tolist() == base.points.tolist()


def test_threads_change_nothing():
    t = texts_task(some_dialogs(60))
    found = [picked("zip", t, 30, k1=40, k2=20, k3=7, workers=workers) for workers in (1, 2, 3, None)]
    for other in found[1:]:
        np.testing.assert_array_equal(other.points, found[0].points)
        np.testing.assert_array_equal(other.gains, found[0].gains)


def test_rows_without_any_text_are_left_out():
    """As short as they are, they would be first."""
    dialogs = some_dialogs(12)
    dialogs[3], dialogs[8] = [], [("user", ""), ("assistant", "")]
    t = texts_task(dialogs)
    found = picked("zip", t, 12, **SMALL)
    assert sorted(found.points.tolist()) == [0, 1, 2, 4, 5, 6, 7, 9, 10, 11]
    assert found.notes == ("2 rows without any text in a dialogue were left out",)
    forced = picked("zip", replace(t, limits=replace(Limits.none(12), first=np.array([3]))), 4, **SMALL)
    assert forced.points[0] == 3 and len(forced) == 4
    assert set(picked("zip", t, 12, **SMALL, record="whole").points.tolist()) == set(range(12))
    with pytest.raises(UserError, match=r"none of the 2 usable rows has a dialogue; sampler.record=whole"):
        picked("zip", texts_task([[], []]), 1)


def test_halves_of_surrogate_pairs():
    dialogs = [[("user", f"half \ud800 of {'a pair ' * i}")] for i in range(6)]
    same(picked("zip", texts_task(dialogs), 4, **SMALL), naive([*map(sharegpt, dialogs)], 4, 12, 6, 3))


@pytest.mark.parametrize("compat", [False, True], ids=["ours", "compat"])
def test_a_resumed_run_is_the_undisturbed_one(compat):
    seen: list[Snapshot] = []
    limits = replace(Limits.none(40), first=np.array([5, 2]), started=1)
    t = texts_task(some_dialogs(40), limits=limits)
    whole = picked("zip", replace(t, on_snapshot=seen.append), 14, **SMALL, compat=compat)
    assert [len(snapshot.points) for snapshot in seen] == [2, 5, 8, 11, 14]
    for snapshot in seen:
        again = picked("zip", replace(t, resume=snapshot), 14, **SMALL, compat=compat)
        assert again.points.tobytes() == whole.points.tobytes()
        assert again.gains.tobytes() == whole.gains.tobytes()
        assert (again.why, again.rounds) == (whole.why, whole.rounds)
    assert picked("zip", replace(t, resume=seen[-1]), 4, **SMALL, compat=compat).why == whole.why[:4]


@pytest.mark.parametrize("seed", range(2))
def test_limits(seed):
    """Rows that are in, out, of a full quota or too dear are not there for any of the three steps."""
    rng = np.random.default_rng(seed)
    dialogs = some_dialogs(40, seed)
    kind, banned, cost = rng.integers(0, 3, 40), rng.random(40) < 0.2, rng.uniform(1, 3, 40)
    banned[[4, 9]] = False
    limits = Limits(
        np.array([9, 4]), 1, banned, np.arange(41), kind.astype(np.int64), ("a", "b", "c"),
        np.array([5, 4, NO_MOST]), None, cost, 25.0,
    )  # fmt: skip

    def allowed(taken: list[int], i: int) -> bool:
        full = kind[i] < 2 and (kind[taken] == kind[i]).sum() >= (5, 4)[kind[i]]
        return not (banned[i] or full or cost[[*taken, i]].sum() > 25.0)

    found = picked("zip", texts_task(dialogs, limits=limits), 20, **SMALL)
    same(found, naive([*map(sharegpt, dialogs)], 20, 12, 6, 3, first=(9, 4), allowed=allowed))
    assert list(found.why[:3]) == ["earlier selection", "must include", "round 1"]
    assert 5 < len(found) < 20  # the tokens end it
    assert "minima" in find_sampler("zip").refuses


def test_fewer_than_those_that_are_in():
    t = texts_task(some_dialogs(9), limits=replace(Limits.none(9), first=np.array([7, 1, 3]), started=3))
    found = picked("zip", t, 2)
    assert found.points.tolist() == [7, 1] and list(found.why) == ["earlier selection"] * 2


def test_a_temporary_file_that_cannot_be_written(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mig_jax.samplers.compression.tempfile.TemporaryFile", full)
    with pytest.raises(UserError, match=r"temporary file in .*No space left on device; TMPDIR"):
        picked("zip", texts_task(some_dialogs(3)), 1)


@pytest.fixture(scope="module")
def recorded(shared):
    """(task of the recorded pool in the reference's layout, what was recorded)."""
    pool, _ = golden_task(shared)
    rows = [json.loads(raw) for raw in pool.read_rows(np.arange(len(pool)))]
    raw = [
        json.dumps(
            {
                "id": row["_id"],
                "conversations": [{"from": ROLES[t["role"]], "value": t["content"]} for t in row["dialogs"]],
                "source": row["source"][0],
            }
        ).encode()
        for row in rows
    ]
    expected = dict(np.load(shared / "golden" / "public" / "zip" / "zip.npz"))
    texts = [str([json.loads(line)]).encode() for line in raw]
    assert [len(text) for text in texts] == expected["repr_bytes"].tolist()
    if [len(zlib.compress(text, 9)) for text in texts] != expected["compressed_bytes"].tolist():
        pytest.skip(f"zlib {zlib.ZLIB_RUNTIME_VERSION} compresses otherwise than the one of the recording (1.2.13)")
    return texts_task([[]] * len(raw), raw), expected


def state_of(snapshot: Snapshot) -> np.ndarray:
    """As the reference keeps it: 1e6 for what is never looked at again."""
    return np.where(snapshot.state.left, snapshot.state.ratio, np.float32(1e6))


@pytest.mark.slow
def test_the_recorded_run_of_300(recorded):
    task, expected = recorded
    seen: list[Snapshot] = []
    found = picked("zip", replace(task, on_snapshot=seen.append), 300, k1=1000, k2=100, k3=50, compat=True)
    np.testing.assert_array_equal(seen[0].state.ratio, expected["initial_ratio"].astype(np.float32))
    np.testing.assert_array_equal(found.points, expected["b300_order"])
    np.testing.assert_array_equal(found.gains, expected["b300_forced_stage3_ratio"])
    np.testing.assert_array_equal(state_of(seen[-1]), expected["b300_final_state_f32"])


def test_the_recorded_run_of_110_along_its_own_path(recorded):
    """At pick 38 two rows are equal and torch.topk takes the other one. So each round starts from the recorded picks
    of those before; up to the tie its picks are the same, and after it every recorded pick is one of the lowest."""
    task, expected = recorded
    order, ratio = expected["b110_order"], expected["b110_forced_stage3_ratio"]
    found = picked("zip", task, 110, k1=400, k2=60, k3=40, compat=True)
    np.testing.assert_array_equal(found.points, expected["b110_oracle_order"][:110])
    seen: list[Snapshot] = []
    resume = None
    for number in range(3):
        start, end = 40 * number, 40 * number + 40
        step = replace(task, resume=resume, on_snapshot=seen.append)
        found = picked("zip", step, end, k1=400, k2=60, k3=40, compat=True)
        tie = next((i for i in range(start, end) if found.points[i] != order[i]), end)
        assert tie == (38 if number == 0 else end)
        np.testing.assert_array_equal(found.gains[: min(tie + 1, end)], ratio[: min(tie + 1, end)])
        resume = replace(seen[-1], points=order[:end])
        gone = np.flatnonzero(~resume.state.left)
        assert gone.tolist() == sorted(expected["b110_stage2"][: number + 1].reshape(-1).tolist())
    np.testing.assert_array_equal(state_of(resume), expected["b110_final_state_f32"])

    with ThreadPoolExecutor(1) as threads:
        records = Records(repr(json.loads(raw)) for raw in task.rows.raw(np.arange(2000)))
        for final, picks in zip(expected["b110_stage2"], expected["b110_stage3"], strict=True):
            batch, left = Prefix(records, threads), final.tolist()
            for pick in picks.tolist():
                ratios = batch.ratios(np.array(left, np.int64))
                assert ratios[left.index(pick)] == ratios.min()
                batch.append(pick)
                left.remove(pick)
