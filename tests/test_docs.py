"""What the documents say is so: links, commands, defaults, and the claim about the bundled pool."""

import re
import shlex
import subprocess
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mig_jax.cli import sample
from mig_jax.cli.arguments import prepare
from mig_jax.commands.registry import COMMANDS as REGISTRY
from mig_jax.commands.registry import compose
from mig_jax.commands.select.config import SelectConfig
from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import MINILM, SMOLLM2_135M, find_checkpoint
from mig_jax.models.configured import model_spec_of, spec_of
from tests.pages import PAGES, ROOT, read

DOCUMENTS = (*PAGES, "CONTRIBUTING.md", "experiments/README.md")
MACHINE = re.compile(rb"(?<![\w.~-])/(?:home|root|work|Users|tmp)/\w")


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files that git knows."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    assert "README.md" in names
    return names


def test_nothing_is_left_to_fill_in(tracked: list[str]):
    found = {
        name: left
        for name in tracked
        if name.endswith(".md") and (left := re.findall(r"@[A-Z]+@|\bTODO\b|\bFIXME\b", read(name)))
    }
    assert not found


def test_no_file_names_a_path_of_a_machine(tracked: list[str]):
    found = {name: left for name in tracked if (left := MACHINE.findall((ROOT / name).read_bytes()))}
    assert not found


@pytest.mark.parametrize("text", ["see {}home/ann/x", "'{}root/a'", "={}work/main", "({}tmp/x1)"])
def test_a_path_of_a_machine_is_known_when_seen(text: str):
    assert MACHINE.search(text.format("/").encode())  # a slash in the list would be found in this file


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str):
    text, folder = read(document), (ROOT / document).parent
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [target.partition("#")[0] for target in targets if not re.match(r"https?://|#|mailto:", target)]
    assert [target for target in local if not (folder / target).exists()] == []
    # Files named in passing: `mig_jax/pool/layouts.py`, `../conf/experiment/*.yaml`; NAME stands for one's own.
    named = re.findall(r"`((?:[\w.-]+/)+[\w.*-]+\.(?:py|yaml|ipynb|md|txt|html|npz))`", text)
    named = [name for name in named if "NAME" not in name]
    assert [name for name in named if not (any(folder.glob(name)) or any(ROOT.glob(name)))] == []


def test_the_readme_shows_its_picture():
    assert "(experiments/figures/report.png)" in read("README.md")


def command_lines(text: str) -> list[str]:
    """Every mig-jax line of the code blocks, fenced or indented, and those inside a line, continuations joined."""
    text = re.sub(r"\\\n\s*", " ", text)
    text = text.replace("experiment=NAME ... ", "experiment=threshold ")
    lines = re.findall(r"^(?: {4})?(mig-jax .+)$", text, re.M) + re.findall(r"`(mig-jax \w+ [^`\n]+)`", text)
    forms = ("key=value", "COMMAND", "FOLDER")  # where a form is shown rather than a command
    return [line for line in lines if not any(form in line for form in forms)]


def settings(text: str) -> list[str]:
    """Code inside a line that is nothing but key=value: `embedder=bert embedder.path=DIR`."""
    return re.findall(r"`((?:[a-z_]+(?:\.[a-z_0-9]+)*=[^\s`]+ ?)+)`", text)


def composed(overrides: list[str]) -> SelectConfig:
    return compose("select", overrides)


def expanded(overrides: list[str]) -> list[list[str]]:
    """The jobs of a sweep; of any other command line itself. Hydra's own settings need Hydra's own run."""
    choices = []
    for override in OverridesParser.create().parse_overrides([o for o in overrides if not o.startswith("hydra")]):
        if override.is_sweep_override():
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line])
    return [list(job) for job in product(*choices)]


def check_command(line: str) -> None:
    """It is accepted by what reads it; a UserError or one of Hydra's otherwise."""
    _, command, *arguments = [word for word in shlex.split(line, comments=True) if word != "&"]
    if "--help" in (command, *arguments):
        assert command in (*REGISTRY, "--help")
    elif command == "sample":
        composed(sample.overrides(sample.parser().parse_args(arguments)))
    elif command in REGISTRY and command != "select":
        compose(command, prepare(arguments, command))
    else:
        assert command == "select"
        for job in expanded([word for word in prepare(arguments) if not word.startswith("-")]):
            composed(job)


OWN_KEYS = {  # a setting begins so -> whose it is; any other is of select
    "model": "generate", "tags": "annotate", "ifd": "annotate", "annotat": "annotate", "vocabulary": "vocabulary",
    "plan": "plan", "embed.": "embed", "rows": "annotate", "generate": "generate",
}  # fmt: skip
COMMANDS = [(document, line) for document in DOCUMENTS for line in command_lines(read(document))]
SETTINGS = [(document, words) for document in DOCUMENTS for words in settings(read(document))]


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_every_command_of_the_documents_is_accepted(document: str, line: str):
    check_command(line)


@pytest.mark.parametrize(("document", "words"), SETTINGS)
def test_every_setting_of_the_documents_is_accepted(document: str, words: str):
    if words.startswith(("hydra", "MIG_", "PYTHON")):
        pytest.skip("not a setting of mig-jax")
    ranges = re.sub(r"=(\d+)\.\.\d+", r"=\1", words)  # mesh.process=0..3: each process its own
    for job in expanded(prepare(shlex.split(ranges))):
        own = next((command for start, command in OWN_KEYS.items() if words.startswith(start)), None)
        if own is not None:
            check_command(f"mig-jax {own} {shlex.join(job)}")
        else:
            composed(job)


def test_the_documents_were_searched():
    lines = [line for _, line in COMMANDS]
    assert sum(line.startswith("mig-jax select") for line in lines) >= 6
    assert any(line.startswith("mig-jax sample") and "--batch-size 32768" in line for line in lines)
    assert ("docs/formats.md", "pool.on_error=skip") in SETTINGS


@pytest.mark.parametrize(
    "line",
    [
        "mig-jax select p.jsonl nn=3",
        "mig-jax select p.jsonl graph.threshhold=0.9  # a key",
        "mig-jax select p.jsonl sampler=best",
        "mig-jax select -m p.jsonl engine.shortlist=5,0",
        "mig-jax embed p.jsonl n=3",
        "mig-jax annotate p.jsonl annotators=[tags,quality]",
        "mig-jax annotate p.jsonl tags=tagger",
        "mig-jax vocabulary p.jsonl vocabulary.rules=stems",
        "mig-jax generate hello model=gpt5",
        "mig-jax report runs/a colour=red",
        "mig-jax sample p.jsonl --out x --no-such-flag",
        "mig-jax select --no-such-flag",
    ],
)
def test_a_wrong_command_would_be_noticed(line: str):
    from hydra.errors import HydraException

    with pytest.raises((UserError, HydraException)):
        check_command(line)


def test_embedder_and_model_have_one_set_of_defaults():
    assert spec_of(composed([]).embedder) == MINILM
    assert model_spec_of(compose("generate").model) == SMOLLM2_135M


@pytest.fixture(scope="module")
def picked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What README's Python lines leave in ``picked``, run on the bundled pool with the demo's budget."""
    try:
        find_checkpoint(MINILM)
    except UserError as error:
        pytest.skip(f"MiniLM's weights are not on this machine: {error}")
    (code,) = re.findall(r"```python\n(.*?)```", read("README.md"), re.S)
    changed = code.replace('load_pool("pool.jsonl.gz")', "load_pool()").replace("n=1000", "n=50")
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        exec(compile(changed, "README.md", "exec"), names)
        assert Path("report.html").stat().st_size > 10_000
    assert changed.count("load_pool()") == changed.count("n=50") == 1
    return names["picked"]


@pytest.mark.slow
def test_the_demo_leaves_out_near_duplicates_and_bad_answers(picked: Any):
    pool = picked.pool
    assert len(pool) == 463 and len(picked) == 50
    text = " ".join(read("README.md").split())
    assert "select 50 of the 463 bundled rows" in text
    assert "leave out all 32 near-duplicates and all 32 bad answers" in text
    of_pool, of_picks = (
        Counter(pool.source_names[i] for i in pool.source_idx[rows]) for rows in (slice(None), picked.rows)
    )
    for source in ("demo/near_duplicates", "demo/low_quality"):
        assert of_pool[source] == 32 and of_picks[source] == 0
    assert sum(of_picks.values()) == 50
