"""``mig-jax COMMAND --help``: the configuration files themselves, whose comments say what each key does."""

import importlib.resources
from collections.abc import Mapping
from importlib.resources.abc import Traversable

HEAD = """\
mig-jax select [POOL] [key=value ...] [-m]

Select the rows of a pool that add the most information. POOL is a file, a folder, a glob or hf:org/name; without it the
bundled pool is used. Every key below can be given as key=value (graph.degree=6, pool.on_error=skip); a group takes
one of its options (phi=log).
-m runs every combination of values with commas (graph.threshold=0.6,0.7); --cfg job prints the configuration.
"""
PLAN_HEAD = """\
mig-jax plan [POOL] [key=value ...]

What mig-jax select with the same arguments would take on this machine: seconds by stage, memory, whether it fits. It
takes every key of mig-jax select (mig-jax select --help), reads the first megabytes of the pool, measures the machine
once (half a minute; kept in the cache) and writes no run. Of a pool that does not exist yet say what it is like:

  mig-jax plan pool.jsonl.gz n=50000
  mig-jax plan plan.rows=30_000_000 plan.labels=4531 plan.tags=4 plan.bytes=3200 graph.degree=4 n=50000

"""
ANNOTATE_HEAD = """\
mig-jax annotate [POOL] [key=value ...]

Write a pool again with what a selection needs: tags, DEITA's complexity and quality, IFD, CaR's score, token counts,
each where MIG's layout has it; all else in a row stays as it came, byte for byte. Writes out/pool.jsonl, refused.jsonl
(rows that got no value, and why), report.html and manifest.json. Broken off at any moment, the same command goes on.

  mig-jax annotate pool.jsonl.gz out=runs/tagged                              tags by MiniLM, token counts
  mig-jax annotate pool.jsonl.gz annotators=[tags,ifd] out=runs/annotated     and IFD by SmolLM2
  mig-jax annotate pool.jsonl.gz annotators=[tags,deita] tags=instag out=...  InsTagger's tags, DEITA's scores
  mig-jax annotate pool.jsonl.gz annotators=[ifd] model@ifd.model=llama31_8b plan=true        how long would it take?
  mig-jax annotate pool.jsonl.gz mesh.processes=2 mesh.process=0   one of two processes or machines that share a disk

"""
EMBED_HEAD = """\
mig-jax embed [POOL|FILE] [key=value ...]

Embed the rows of a pool, its labels (embed.target=labels), or the texts of a FILE: a .txt with one text on each line,
or a .json that is a list of strings. Writes out/embeddings.npy (float32, one vector a row of the pool or text, in
order; rows without a dialog get zeros), manifest.json and, for labels, labels.json. Broken off at any moment, the same
command goes on.

  mig-jax embed pool.jsonl.gz out=runs/rows
  mig-jax embed pool.jsonl.gz embed.target=labels embedder=e5_mistral mesh.fsdp=4 out=runs/labels
  mig-jax embed pool.jsonl.gz mesh.processes=2 mesh.process=0     one of two processes or machines that share a disk

"""
VOCABULARY_HEAD = """\
mig-jax vocabulary [POOL] [key=value ...]

Make labels of a pool's tags: rare tags go, spellings of one tag, tags of near meaning and tags that never come without
another become one. Writes out/vocabulary.json (labels, the most frequent first, and aliases: tag -> label), which
pool.valid_tags= takes; steps.json, every merge of every step; manifest.json.

  mig-jax vocabulary pool.jsonl.gz out=runs/vocabulary
  mig-jax vocabulary pool.jsonl.gz vocabulary.min_count=20 vocabulary.keep= vocabulary.stem_cosine=null      as #InsTag
  mig-jax vocabulary pool.jsonl.gz vocabulary.rules=null vocabulary.support=null       MIG: frequency and DBSCAN
  mig-jax select pool.jsonl.gz pool.valid_tags=runs/vocabulary/vocabulary.json n=1000

"""
GENERATE_HEAD = """\
mig-jax generate PROMPT|FILE [key=value ...]

What a language model answers: to one prompt, or to those of a FILE (.txt, one a line; .jsonl of {"prompt": ..} or
{"messages": [..]}). Prompts are written with the model's chat template where it has one. Answers are printed, or
written with their prompts, log-probabilities and why they ended to out=FILE.jsonl.

  mig-jax generate "What is the capital of France?"
  mig-jax generate prompts.jsonl model=qwen25_7b generate.temperature=0.7 out=answers.jsonl
  mig-jax generate "Once upon a time" model=checkpoint model.path=model.gguf generate.chat=false

"""
REPORT_HEAD = """\
mig-jax report RUN [RUN ...] [key=value ...]

Finished runs told again. RUN is the folder of a run, its manifest.json, or a folder that holds runs, as a sweep's: then
all inside. Several runs are compared on one page and in comparison.csv beside it: what each reached, where its rows
come from, what they are like, which rows two of them share, and what it took; those in a folder that cannot be read are
named and left out. Of one run, and of what mig-jax annotate made: its summary, or with out= its page again.

  mig-jax select -m n=1000 sampler=mig,random,deita,pool out=runs/all
  mig-jax report runs/all
  mig-jax report runs/first runs/second out=both.html

"""
GROUPS = ("pool", "embedder", "phi", "sampler", "experiment")
HOW = {"experiment": "+experiment=NAME with -m"}
OF_PLACES = """\
model@PLACE=NAME, its keys PLACE.path=DIR and so on; PLACE is tags.model (with tags=instag), deita.complexity,
deita.quality, ifd.model, car.model or tokens.model"""
SHARED = "base"


def select_help() -> str:
    """The whole text."""
    return _help(HEAD, "select", GROUPS)


def embed_help() -> str:
    """The same of mig-jax embed."""
    return _help(EMBED_HEAD, "embed", ("pool", "embedder"))


def annotate_help() -> str:
    """The same of mig-jax annotate."""
    groups = ("pool", "embedder", "tags", "ifd", "model")
    return _help(ANNOTATE_HEAD, "annotate", groups, HOW | {"model": OF_PLACES})


def vocabulary_help() -> str:
    """The same of mig-jax vocabulary."""
    return _help(VOCABULARY_HEAD, "vocabulary", ("pool", "embedder"))


def generate_help() -> str:
    """The same of mig-jax generate."""
    return _help(GENERATE_HEAD, "generate", ("model",))


def _help(head: str, name: str, groups: tuple[str, ...], how: Mapping[str, str] = HOW) -> str:
    conf = importlib.resources.files("mig_jax.conf")
    parts = [head, _keys((conf / f"{name}.yaml").read_text(encoding="utf-8"))]
    parts.append(_keys((conf / f"{SHARED}.yaml").read_text(encoding="utf-8").partition("\nhydra:")[0] + "\n"))
    for group in groups:
        given = how.get(group, f"{group}=NAME")
        parts.append(f"{group} ({given})\n" + "".join(_option(file) for file in _files(conf / group)))
    return "\n".join(parts)


def report_help() -> str:
    """The keys of mig-jax report."""
    text = (importlib.resources.files("mig_jax.conf") / "report.yaml").read_text(encoding="utf-8")
    return REPORT_HEAD + _keys(text.partition("\nhydra:")[0] + "\n")


def plan_help() -> str:
    """The keys that plan has of its own."""
    return PLAN_HEAD + _keys((importlib.resources.files("mig_jax.conf") / "plan.yaml").read_text(encoding="utf-8"))


def _files(folder: Traversable) -> list[Traversable]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)


def _keys(text: str) -> str:
    """A file without its title and its defaults list."""
    lines = _without_defaults([line for line in text.splitlines() if not line.startswith("# ")])
    return "\n".join(lines).strip("\n") + "\n"


def _without_defaults(lines: list[str]) -> list[str]:
    if "defaults:" not in lines:
        return lines
    start = lines.index("defaults:")
    end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith(" "))
    return lines[:start] + lines[end:]


def _option(file: Traversable) -> str:
    """Its name, the first line of its comment, and its keys; of one that changes another, or a whole run, no keys."""
    lines = file.read_text(encoding="utf-8").splitlines()
    said = next((line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @")), "")
    title = f"  {file.name.removesuffix('.yaml'):<17} {said}\n"
    changes = "defaults:" in lines and not any(line.startswith("  - /model@") for line in lines)
    if changes or any(line.startswith(("hydra:", "# @package")) for line in lines):
        return title
    keys = [line for line in _without_defaults(lines) if line and not line.startswith(("#", "name:"))]
    return title + "".join(f"      {line}\n" for line in keys)
