"""The weights in a folder or in a repository of the Hugging Face hub, and the download of a repository."""

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
_DUPLICATES = ["consolidated*", "onnx/*", "openvino/*"]  # the same weights again, in other layouts
_TIMEOUT = 5.0  # seconds until the hub counts as unreachable
_PICKLED = (".bin", ".pt", ".pth")
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def choose_weights(names: Iterable[str], where: str, *, example: str, prefix: str) -> str | None:
    """The file with the weights: the name of a .gguf file, or None for ``WEIGHTS`` or the shards of ``INDEX``.

    Args:
      names: of all files of the folder or repository.
      where: the folder or repository, for messages.
      example: the setting that chooses one of several .gguf files, with ``FILE`` for its name.
      prefix: see ``ModelSpec.prefix``.

    Raises:
      UserError: there are several .gguf files, only pickled weights, or no weights.
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
        raise UserError(f"has {len(ggufs)} .gguf files; choose one, {example}: {', '.join(ggufs)}", where=where)
    pickled = [name for name in names if name.endswith(_PICKLED) and not name.startswith("training_args")]
    if not pickled:
        raise UserError(f"there is no {WEIGHTS}, no {INDEX} and no .gguf file", where=where)
    more = f" and {len(pickled) - 3} more" if len(pickled) > 3 else ""
    auto = "AutoModel" if prefix == "embedder" else "AutoModelForCausalLM"
    raise UserError(
        f"has pickled weights only ({', '.join(pickled[:3])}{more}), which can run code and are not read; "
        f"convert once with transformers: {auto}.from_pretrained({where!r}).save_pretrained(DIR, "
        f"safe_serialization=True), put its tokenizer's files there too and set {prefix}.path=DIR",
        where=where,
    )


def find_on_hub(
    hub: str, revision: str | None, *, prefix: str, weight_files: Callable[[Path], object]
) -> tuple[Path | None, str]:
    """The snapshot's folder or the .gguf file in it, from the local cache or downloaded; or None and the reason.

    One short request precedes the download: snapshot_download itself tries an unreachable host six times in 23 seconds
    and logs each. From a repository of .gguf files one file is downloaded.

    Args:
      hub: ``org/name``, or ``org/name:FILE.gguf``.
      prefix: see ``ModelSpec.prefix``.
      weight_files: raises UserError where a folder lacks some of its .safetensors files.

    Raises:
      UserError: see ``choose_weights``; there is no such FILE.
    """
    import huggingface_hub  # half a second; not needed where the weights are on this machine

    repo, _, file_name = hub.partition(":")

    def snapshot(patterns: list[str], **options: Any) -> Path:
        files: dict[str, Any] = {"allow_patterns": patterns, "ignore_patterns": _DUPLICATES}
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, **files, **options))

    with _quiet("huggingface_hub"):
        try:
            cached = snapshot(_FILES, local_files_only=True)
        except (OSError, ValueError):  # not in the cache
            cached = None
        if cached is not None and (complete := _complete(cached, file_name, weight_files)):
            return complete, ""
        try:
            info = huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT)
            names = [file.rfilename for file in info.siblings or ()]
            file = _file_to_fetch(names, repo, file_name, prefix)
            folder = snapshot(_FILES if file is None else [*_parts(file), "chat_template.jinja"])
            return (folder if file is None else folder / file), ""
        except UserError:
            raise
        except Exception as error:  # its transport's errors differ between versions and share no base class
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    # Not before the request: a bare org/name must not mean the cached one of several .gguf files on the hub.
    if cached is not None and not file_name and len(ggufs := sorted(cached.rglob("*.gguf"))) == 1:
        return ggufs[0], ""
    return None, f"the hub did not give {repo}: {reason}"


def _complete(folder: Path, file_name: str, weight_files: Callable[[Path], object]) -> Path | None:
    """The snapshot's folder, or its .gguf file of that name, if all files are there."""
    if file_name:
        return folder / file_name if all((folder / part).is_file() for part in _parts(file_name)) else None
    try:
        weight_files(folder)
    except UserError:
        return None
    return folder


def _file_to_fetch(names: list[str], repo: str, file_name: str, prefix: str) -> str | None:
    """The .gguf file to download; None: the folder."""
    if not file_name:
        return choose_weights(names, repo, example=f"{prefix}.hub={repo}:FILE", prefix=prefix)
    if file_name.endswith(".gguf") and set(_parts(file_name)) <= set(names):
        return file_name
    ggufs = [name for name in sorted(names) if name.endswith(".gguf")]
    has = f"its .gguf files: {', '.join(ggufs)}" if ggufs else "it has no .gguf file"
    message = f"there is no such .gguf file in {repo}; {has}"
    raise UserError(message, key=f"{prefix}.hub", value=f"{repo}:{file_name}")


def _parts(file: str) -> list[str]:
    """The name of a .gguf file; for one part of a split file, the names of all parts."""
    match = _PART.fullmatch(file)
    return [f"{match[1]}-{n:05}-of-{match[3]}.gguf" for n in range(1, int(match[3]) + 1)] if match else [file]


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library's warnings off the terminal: the error has the same text."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
