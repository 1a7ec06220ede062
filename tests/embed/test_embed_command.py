"""``mig-jax embed`` as a user has it: files, messages, what is done already, what is wrong."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import cli_pools
import numpy as np
import pytest
from mig_command import Server
from test_embed_crash import notes

from mig_jax.models.checkpoints.checkpoint import MINILM, EmbedderSpec
from mig_jax.models.inference.embed import load_embedder


def run(server: Server, where: Path, *arguments: str, **env: str):
    return server.run(["embed", *map(str, arguments)], where, **env)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rows_of_a_pool(server, with_tiny, tiny, tmp_path):
    rows = [cli_pools.row(0), '{"dialogs": [', *(cli_pools.row(i) for i in range(2, 30))]
    cli_pools.write(tmp_path / "p.jsonl", rows)
    options = ["embed.batch_tokens=128", "embedder.max_length=16", "pool.on_error=skip"]
    done = run(server, tmp_path, "p.jsonl", *with_tiny, *options, "out=sub/run")
    assert done.code == 0, done
    assert notes(done) == [
        "note: embed: 29 of 30 texts are longer than max_length=16 tokens; only their beginning was read",
        "note: 1 of 30 rows have no dialog: their vectors are zero",
    ]
    assert re.fullmatch(
        r"30 rows -> 24 numbers each; 464 tokens in [\d.]+ s \([\d,]+ tokens/s\); sub/run\n", done.out
    ), done.out
    assert listing(tmp_path) == ["p.jsonl", "sub", "tiny"] and listing(tmp_path / "sub") == ["run"]
    assert listing(tmp_path / "sub/run") == ["embeddings.npy", "manifest.json"]
    got = np.load(tmp_path / "sub/run/embeddings.npy", mmap_mode="r")
    assert got.dtype == np.float32 and got.shape == (30, 24)
    texts = [f"Question {i} é\n\nAnswer {i}" for i in range(30)]
    spec = EmbedderSpec(name="tiny", path=tiny.folder, max_length=16)
    expected = load_embedder(spec, batch_tokens=128).embed([texts[0], *texts[2:]])
    # Packed otherwise than with the row that is missing here; float32 rounding of numbers below 1.
    np.testing.assert_allclose(got[[0, *range(2, 30)]], expected, atol=2e-6)
    assert (got[1] == 0).all()
    manifest = json.loads((tmp_path / "sub/run/manifest.json").read_text())
    known = {"kind": "embed", "target": "rows", "n": 30, "dim": 24, "dtype": "float32", "without_text": 1, "cut": 29}
    known |= {"tokens": 464, "computed": 464, "batch_tokens": 128}
    assert manifest | known == manifest
    assert manifest["command"].startswith("mig-jax embed ") and "embedder=bert embedder.path=" in manifest["command"]
    assert manifest["embedder"] == load_embedder(spec).fingerprint
    assert manifest["config"]["embedder"]["path"] == str(tiny.folder) and manifest["versions"]["jax"]
    assert set(manifest["timings"]) >= {"read", "tokenize", "embed", "write"}
    assert manifest["files"]["embeddings.npy"]["bytes"] == (tmp_path / "sub/run/embeddings.npy").stat().st_size


def test_labels_texts_and_lists(server, with_tiny, tiny, tmp_path):
    cli_pools.good(tmp_path / "p.jsonl")
    (tmp_path / "t.txt").write_text("zebra\n\nabc\n")
    (tmp_path / "t.json").write_text('["zebra", "", "abc"]')
    embedder = load_embedder(EmbedderSpec(name="tiny", path=tiny.folder, max_length=64))
    asked = [*with_tiny, "embedder.instruction=never of labels", "embedder.prompt={instruction} {text}"]
    done = run(server, tmp_path, "p.jsonl", *asked, "embed.target=labels", "out=labels")
    assert done.code == 0 and done.out.startswith("5 labels -> 24 numbers each; "), done
    assert json.loads((tmp_path / "labels/labels.json").read_text()) == sorted(cli_pools.LABELS)
    got = np.load(tmp_path / "labels/embeddings.npy")
    np.testing.assert_array_equal(got, embedder.embed(sorted(cli_pools.LABELS)))
    for name in ("t.txt", "t.json"):
        done = run(server, tmp_path, name, *with_tiny, f"out={name}.run")
        assert done.code == 0 and done.out.startswith("3 texts -> "), done
        np.testing.assert_array_equal(
            np.load(tmp_path / f"{name}.run/embeddings.npy"), embedder.embed(["zebra", "", "abc"])
        )
    done = run(server, tmp_path, "t.txt", *asked, "out=asked")
    assert done.code == 0, done
    expected = embedder.embed([f"never of labels {text}" for text in ("zebra", "", "abc")])
    np.testing.assert_array_equal(np.load(tmp_path / "asked/embeddings.npy"), expected)


def test_done_another_and_overwrite(server, with_tiny, tmp_path):
    cli_pools.good(tmp_path / "p.jsonl")
    command = ["p.jsonl", *with_tiny, "out=run"]
    first = run(server, tmp_path, *command)
    assert first.code == 0, first
    before = (tmp_path / "run/manifest.json").read_bytes()
    again = run(server, tmp_path, *command, "embed.save_every=3", "mesh.data=1")  # these decide no vector
    assert (again.code, again.out) == (0, first.out), again
    assert again.err == "note: run holds this very run already; overwrite=true would do it again\n"
    for change in ("embedder.pooling=cls", "embed.target=labels", "embed.batch_tokens=32", "embedder.max_length=9"):
        error = run(server, tmp_path, *command, change).error
        assert "holds another run (mig-jax embed " in error and "overwrite=true" in error
    assert (tmp_path / "run/manifest.json").read_bytes() == before
    (tmp_path / "run/mine.txt").touch()
    done = run(server, tmp_path, *command, "embed.target=labels", "overwrite=true")
    assert done.code == 0, done
    assert listing(tmp_path / "run") == ["embeddings.npy", "labels.json", "manifest.json", "mine.txt"]


CASES = [
    ("gone.jsonl", ["gone.jsonl"]),
    (
        "p.jsonl embed.targt=rows",
        ["embed.targt: no such key; did you mean embed.target? (mig-jax embed --help lists them all)"],
    ),
    ("p.jsonl n=5", ["n: no such key", "mig-jax embed --help"]),
    ("p.jsonl graph.threshold=0.5", ["graph.threshold: no such key"]),
    ("p.jsonl embed.target=tags", ["embed.target=tags: must be one of rows, labels"]),
    ("p.jsonl embed.batch_tokens=0", ["embed.batch_tokens=0: must be auto or a whole number >= 1"]),
    ("p.jsonl embed.save_every=-1", ["embed.save_every=-1: must be a number >= 0"]),
    ("p.jsonl embedder.pooling=first", ["embedder.pooling=first: must be one of mean, cls, last"]),
    ("p.jsonl embedder.dtype=float16", ["embedder.dtype=float16: must be one of float32, bfloat16"]),
    ("p.jsonl embedder.max_length=65", ["embedder.max_length=65: ", "has 64 positions"]),
    ("p.jsonl embedder.append_eos=true", ["embedder.append_eos: ", "names no end-of-text token"]),
    ("p.jsonl embedder.instruction=x embedder.prompt=y", ["embedder.prompt=y: must contain {instruction} and {text}"]),
    ("p.jsonl mesh.data=3", ["mesh.data=3, mesh.fsdp=1, mesh.tensor=1: need 3 devices, there are 1"]),
    ("p.jsonl mesh.fsdp=some", ["mesh.fsdp=some: must be a whole number >= 1"]),
    ("p.jsonl mesh.data=some", ["mesh.data=some: must be auto or a whole number >= 1"]),
    ("p.jsonl mesh.process=0", ["mesh.processes: belongs together with mesh.process"]),
    ("p.jsonl mesh.process=2 mesh.processes=2", ["mesh.process=2: must be less than mesh.processes=2"]),
    ("p.jsonl out=p.jsonl", ["out=p.jsonl: is a file"]),
    ("p.jsonl out=tiny", ["out=", "tiny: is not empty and holds no finished run of mig_jax"]),
    ("bad.jsonl", ["bad.jsonl:1: malformed"]),
    ("bad.txt", ["bad.txt:1: not UTF-8"]),
    ("p.jsonl -m", ["mig-jax embed: makes one set of embeddings; -m belongs to mig-jax select"]),
    ("p.jsonl embedder=bart", ["embedder=bart: must be one of bert, bge_base,"]),
]


@pytest.mark.slow
def test_what_a_person_gets_wrong_is_one_message_and_nothing_is_written(server, with_tiny, tmp_path):
    cli_pools.good(tmp_path / "p.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"dialogs": [\n')
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    before = listing(tmp_path)
    wrong = []
    for command, parts in CASES:
        error = run(server, tmp_path, *with_tiny, *command.split(" ")).error
        if not re.search(".*".join(map(re.escape, parts)), error, re.S):
            wrong.append((command, parts, error))
    assert not wrong
    assert listing(tmp_path) == before


def test_weights_that_hold_nan_are_told(server, with_tiny, tiny, tmp_path):
    cli_pools.good(tmp_path / "p.jsonl")
    name = next(name for name in tiny.tensors if name.endswith("embeddings.LayerNorm.bias"))
    tiny.write(tiny.tensors | {name: np.full_like(tiny.tensors[name], np.nan)})
    assert "embeddings are not finite" in run(server, tmp_path, "p.jsonl", *with_tiny, "out=run").error
    assert listing(tmp_path) == ["p.jsonl", "tiny"]


def test_help_lists_every_key(server, tmp_path):
    from mig_jax.config.keys import keys_of

    done = run(server, tmp_path, "--help")
    assert done.code == 0 and done.out.startswith("mig-jax embed [POOL|FILE]")
    for key in keys_of("embed"):
        assert re.search(rf"(?m)^ *{key.rpartition('.')[2]}(:| \()", done.out) or key.endswith(".name"), key
    for option in ("minilm", "mpnet", "e5_mistral", "llama31_8b", "decoder"):
        assert re.search(rf"(?m)^  {option} ", done.out)
    assert "mig-jax embed" in server.run(["--help"], tmp_path).out


@pytest.mark.slow
def test_golden_rows(server, golden, tmp_path):
    """Real texts as sentence-transformers embedded them: entries are below 0.3, float32 sums in another order.

    Every eighth of 2,000, which takes a minute less.
    """
    from mig_jax.core.errors import UserError
    from mig_jax.models.checkpoints.checkpoint import find_checkpoint

    try:
        find_checkpoint(replace(MINILM, hub=None))
    except UserError as error:
        pytest.skip(f"MiniLM's weights are not on this machine: {error}")
    with gzip.open(golden / "pool.jsonl.gz", "rb") as file:
        (tmp_path / "some.jsonl").write_bytes(b"".join(file.readlines()[::8]))
    done = run(server, tmp_path, tmp_path / "some.jsonl", "out=run")
    assert done.code == 0, done
    stored = np.load(golden / "embeddings.npy")[::8]
    np.testing.assert_allclose(np.load(tmp_path / "run/embeddings.npy"), stored, atol=1e-5, rtol=0)
