"""What the command line prints: ``--help`` and the messages of every command, word by word, in golden/COMMAND.txt.

After a change of wording: ``python tests/cli/test_cli_wording.py`` writes the files again; read their diff.
Other tests compare the fields of errors, not their wording.
"""

import contextlib
import io
import shlex
from pathlib import Path

import pytest

from mig_jax.cli.main import main
from mig_jax.commands.registry import COMMANDS

GOLDEN = Path(__file__).parent / "golden"
MISTAKES = {
    "": ["sampel", "-h"],
    "select": [
        "a.jsonl b.jsonl", "--nope", "nn=3", "n=0", "n=null", "n=[]", "phi=lgo", "phi.c=1", "phi.kind=x", "score=3",
        "embdder.path=x", "embedder=bert", "sampler=mgi", "sampler.gian=1", "sampler.gain=exat", "graph.degree=x",
        "mesh.rows=some", "export.layout=alpca", "score.from=a..b", "model=car", "limits.tokens=0",
        "sampler=null", "limits.start=x",
    ],
    "plan": ["-m n=1,2", "plan.row=3", "plan.rows=0", "n=0", "plan.out=plan.txt", "plan.out=nowhere/plan.json"],
    "annotate": [
        "-m rows=1,2", "model=llama31_8b", "model.path=x", "tags.model.path=x", "tags=tagger", "annotators=[tag]",
        "annotators=[]", "tag.max_tags=3", "tags.max_tags=0", "ifd.turns=last", "annotate.save_every=-1",
    ],
    "vocabulary": ["-m n=1", "vocabulary.rules=stems", "vocabulary.distance=1", "vocabulary.min=2", "n=3"],
    "embed": ["-m n=1", "embed.target=tags", "embed.targt=rows", "embed.batch_tokens=0", "embedder.pooling=maen"],
    "generate": ["-x", "model=gpt5", "generate.top_k=0", "generate.temperature=-1", "embedder=minilm"],
    "report": ["--nope", "a runs=[b]", "colour=red", "runs=3"],
    "sample": ["", "pool.jsonl", "pool.jsonl --out a --sampler-type x", "pool.jsonl --out a --nope"],
}  # fmt: skip


def printed(arguments: list[str]) -> str:
    """What a command prints on both streams, and its exit code where that is not 0."""
    text, code = io.StringIO(), 0
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join(lines) + (f"\n(exit code {code})\n" if code else "\n")


def texts(command: str) -> str:
    """The golden file of a command; "" is the list of commands."""
    calls = [["--help"], *(shlex.split(line) for line in MISTAKES[command])]
    parts = []
    for call in calls:
        arguments = [command, *call] if command else call
        parts.append(f"$ {shlex.join(['mig-jax', *arguments])}\n{printed(arguments)}")
    return "\n".join(parts)


@pytest.mark.parametrize("command", MISTAKES)
def test_wording(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    assert texts(command) == (GOLDEN / f"{command or 'mig-jax'}.txt").read_text(encoding="utf-8")
    assert not list(tmp_path.iterdir())


def test_every_command_has_its_file():
    assert MISTAKES.keys() - {""} == COMMANDS.keys()
    assert {path.stem for path in GOLDEN.iterdir()} == {*COMMANDS, "mig-jax"}


if __name__ == "__main__":
    import os
    import tempfile

    os.environ["COLUMNS"] = "100"
    GOLDEN.mkdir(exist_ok=True)
    os.chdir(tempfile.mkdtemp())
    for name in MISTAKES:
        (GOLDEN / f"{name or 'mig-jax'}.txt").write_text(texts(name), encoding="utf-8")
