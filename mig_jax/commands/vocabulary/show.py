"""The summary of a finished vocabulary, from its files."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mig_jax.core.errors import UserError
from mig_jax.runs.manifest import MANIFEST, VocabularyManifest, read_manifest

VOCABULARY, STEPS = "vocabulary.json", "steps.json"
LARGEST = 5  # merges shown of each step
TAGS = 6  # tags shown of a merge


def summary(folder: Path) -> str:
    """The summary of the run in a folder.

    Raises:
      UserError: it is not that of a finished ``mig-jax vocabulary``.
    """
    manifest = read_manifest(folder, VocabularyManifest)
    try:
        return text(manifest, json.loads((folder / STEPS).read_bytes()), str(folder))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder} is not a whole run: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is not a whole run: {MANIFEST} or {STEPS} lacks {error}") from None


def text(manifest: VocabularyManifest, steps: Sequence[Mapping[str, Any]], out: str) -> str:
    """One line of totals, a table of the steps, the largest merges of each, and the command that uses it."""
    lines = [
        f"{manifest.rows:,} rows, {manifest.tags:,} tags -> {manifest.labels:,} labels and"
        f" {manifest.aliases:,} other tags that mean one of them; {out}",
        "",
        f"{'step':<12}{'tags':>9}{'left':>9}",
        *(f"{step['step']:<12}{step['before']:>9,}{step['after']:>9,}  {_what(step)}" for step in steps),
    ]
    for step in steps:
        if step["merges"]:
            lines += ["", f"{step['step']}: {'the largest merges' if len(step['merges']) > 1 else 'the one merge'}"]
            lines += [_merge(merge) for merge in step["merges"][:LARGEST]]
    return "\n".join([*lines, "", _next(manifest, out)]) + "\n"


def _next(manifest: VocabularyManifest, out: str) -> str:
    """The selection that takes the vocabulary, from the same pool."""
    path = manifest.config["pool"]["path"]
    mere = isinstance(path, str) and not re.match(r"[-+~]|.*=", path)
    plain = (f"pool.path={path}", f"pool.path='{path}'") if mere else ()  # as the command line holds a mere path
    own = [word for word in shlex.split(manifest.command) if re.match(r"\+*pool(\.\w+)*=", word)]
    pool = [path if word in plain else word for word in own]
    return shlex.join(["mig-jax", "select", *pool, f"pool.valid_tags={Path(out) / VOCABULARY}"])


def _what(step: Mapping[str, Any]) -> str:
    settings = step["settings"]
    if settings is None:
        return "not asked for"
    shown = ", ".join(f"{key}={value}" for key, value in settings.items())
    if step["step"] == "frequency":
        return f"{step['before'] - step['after']:,} dropped ({shown})"
    labels = len(step["merges"])
    into = f" into {labels:,} label{'s' * (labels != 1)}" if labels else ""
    wide = [merge["span"] for merge in step["merges"] if "span" in merge]
    widest = f"; the widest cluster spans {max(wide):.3f}" if wide else ""
    return f"{step['merged']:,} merged{into} ({shown}){widest}"


def _merge(merge: Mapping[str, Any]) -> str:
    """``  label (120 rows) <- other 30, another 5 and 3 more``."""
    own, *others = merge["tags"]
    shown = ", ".join(f"{_quoted(tag['tag'])} {tag['rows']:,}{_rule(tag)}" for tag in others[:TAGS])
    more = f" and {len(others) - TAGS:,} more" if len(others) > TAGS else ""
    span = f", spans {merge['span']:.3f}" if "span" in merge else ""
    return f"  {_quoted(own['tag'])} {own['rows']:,} -> {merge['rows']:,} rows{span} <- {shown}{more}"


def _rule(tag: Mapping[str, Any]) -> str:
    if "cosine" in tag:
        return f" (cosine {tag['cosine']:.2f})"
    return f" ({tag['both']:,} with {_quoted(tag['with'])})" if "with" in tag else ""


def _quoted(tag: str) -> str:
    """A tag on one line, whatever is in it."""
    return tag if tag.isprintable() and tag == tag.strip() and "," not in tag else repr(tag)
