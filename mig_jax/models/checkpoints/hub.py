"""Which weights a folder or a repository of the Hugging Face hub has, and how a repository's are fetched."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mig_jax.core.errors import UserError

WEIGHTS = "model.safetensors"
INDEX = WEIGHTS + ".index.json"
_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
_TWICE = ["consolidated*", "onnx/*", "openvino/*"]  # the same weights again, in other layouts
_TIMEOUT = 5.0  # seconds until an unreachable hub is given up
_PICKLED = (".bin", ".pt", ".pth")
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def weights_of(names: Iterable[str], where: str, *, name_one: str, place: str) -> str | None:
    """Which of the files in one place are the weights: None, those of ``WEIGHTS`` or ``INDEX``; or a .gguf file.

    Args:
      names: of all files there.
      where: the place, for messages.
      name_one: how to name one of several .gguf files, with ``FILE`` where its name goes.
      place: see ``ModelSpec.place``.

    Raises:
      UserError: several .gguf files to choose from, pickled weights only, or no weights.
    """
    names = sorted(names)
    if WEIGHTS in names or INDEX in names:
        return None
    # The parts of a split file count once, as the first.
    ggufs = [name for name in names if name.endswith(".gguf") and ((part := _PART.fullmatch(name)) is None
             or part[2] == "00001")]  # fmt: skip
    if len(ggufs) == 1:
        return ggufs[0]
    if ggufs:
        raise UserError(f"{where}: holds {len(ggufs)} .gguf files; give one, {name_one}: {', '.join(ggufs)}")
    pickled = [name for name in names if name.endswith(_PICKLED) and not name.startswith("training_args")]
    if not pickled:
        raise UserError(f"{where}: there is no {WEIGHTS}, no {INDEX} and no .gguf file")
    more = f" and {len(pickled) - 3} more" if len(pickled) > 3 else ""
    auto = "AutoModel" if place == "embedder" else "AutoModelForCausalLM"
    raise UserError(
        f"{where} has pickled weights only ({', '.join(pickled[:3])}{more}), which can run code and are not read; "
        f"convert once with transformers: {auto}.from_pretrained({where!r}).save_pretrained(DIR, "
        f"safe_serialization=True), put its tokenizer's files there too and give {place}.path=DIR"
    )


def hub_place(
    hub: str, revision: str | None, *, place: str, weight_files: Callable[[Path], object]
) -> tuple[Path | None, str]:
    """The snapshot's folder or the .gguf file in it, from the local cache or downloaded; or None and why not.

    The hub is asked once, briefly, before anything is fetched: snapshot_download itself tries an unreachable host six
    times in 23 seconds and logs each. Of a repository of .gguf files only the one is fetched.

    Args:
      hub: ``org/name``, or ``org/name:FILE.gguf``.
      place: see ``ModelSpec.place``.
      weight_files: raises UserError where a folder lacks some of its .safetensors files.

    Raises:
      UserError: see ``weights_of``; there is no such FILE.
    """
    import huggingface_hub  # half a second, and not needed where the weights lie on this machine

    repo, _, named = hub.partition(":")

    def snapshot(patterns: list[str], **options: Any) -> Path:
        files: dict[str, Any] = {"allow_patterns": patterns, "ignore_patterns": _TWICE}
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, **files, **options))

    with _quiet("huggingface_hub"):
        try:
            cached = snapshot(_FILES, local_files_only=True)
        except (OSError, ValueError):  # not in the cache
            cached = None
        if cached is not None and (found := _whole(cached, named, weight_files)):
            return found, ""
        try:
            info = huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT)
            names = [file.rfilename for file in info.siblings or ()]
            file = _wanted(names, repo, named, place)
            folder = snapshot(_FILES if file is None else [*_parts(file), "chat_template.jinja"])
            return (folder if file is None else folder / file), ""
        except UserError:
            raise
        except Exception as error:  # its transport's errors differ between versions and share no base class
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
    # Only now: of several .gguf files on the hub, the one in the cache is not what a bare org/name means.
    if cached is not None and not named and len(ggufs := sorted(cached.rglob("*.gguf"))) == 1:
        return ggufs[0], ""
    return None, f"the hub did not give {repo}: {why}"


def _whole(folder: Path, named: str, weight_files: Callable[[Path], object]) -> Path | None:
    """What was asked for, if all of it lies in a snapshot's folder."""
    if named:
        return folder / named if all((folder / part).is_file() for part in _parts(named)) else None
    try:
        weight_files(folder)
    except UserError:
        return None
    return folder


def _wanted(names: list[str], repo: str, named: str, place: str) -> str | None:
    name_one = f"{place}.hub={repo}:FILE"
    if not named:
        return weights_of(names, repo, name_one=name_one, place=place)
    if named.endswith(".gguf") and set(_parts(named)) <= set(names):
        return named
    there = [name for name in sorted(names) if name.endswith(".gguf")]
    has = f"its .gguf files: {', '.join(there)}" if there else "it has no .gguf file"
    raise UserError(f"{place}.hub={repo}:{named}: there is no such .gguf file in {repo}; {has}")


def _parts(file: str) -> list[str]:
    """A .gguf file's name; of a part of a split one, the names of all."""
    match = _PART.fullmatch(file)
    return [f"{match[1]}-{n:05}-of-{match[3]}.gguf" for n in range(1, int(match[3]) + 1)] if match else [file]


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library's warnings from the terminal: what matters of them is in the error's text."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
