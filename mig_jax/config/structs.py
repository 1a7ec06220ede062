"""The settings of every command, as frozen structs; ``mig_jax.config_check`` makes them of YAML and overrides."""

from typing import Annotated, Any, Literal

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration."""


class PoolConfig(Struct, frozen=True):
    path: str | tuple[str, ...]
    name: str
    layout: Literal["auto", "mig", "sharegpt", "openai", "alpaca"] = "auto"
    fields: dict[str, str] = {}
    score: str = "deita"  # what score.from is where nothing else is said; only that counts
    valid_tags: str | None = None
    on_error: Literal["raise", "skip"] = "raise"
    n: Positive | None = None
    note: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The pool's paths, one or several."""
        return (self.path,) if isinstance(self.path, str) else self.path


class EmbedderConfig(Struct, frozen=True):
    name: str
    architecture: str | None
    path: str | None
    wheel: str | None
    hub: str | None
    revision: str | None
    sha256: str | None
    pooling: Literal["mean", "cls", "last"] | None
    normalize: bool
    max_length: Positive | None
    threshold: str | float
    tag_threshold: float | None = None
    append_eos: bool | None = False
    prompt: str = "Instruct: {instruction}\nQuery: {text}"
    instruction: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "fused", "plain"] = "auto"


class ModelConfig(Struct, frozen=True):
    name: str
    architecture: str | None
    path: str | None
    wheel: str | None
    hub: str | None
    revision: str | None
    sha256: str | None
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "fused", "plain"] = "auto"
    max_length: Positive | None = None


class PhiConfig(Struct, frozen=True):
    kind: str
    exponent: float = 0.8
    eps: float = 1e-6
    alpha: float = 1.0
    c: float = 1.0


class SamplerOptions(Struct, frozen=True):
    """Settings of a sampler; each has its own, beside its code in mig_jax.samplers."""

    name: str


class ScoreConfig(Struct, frozen=True):
    source: str = msgspec.field(default="deita", name="from")
    turns: Literal["mean", "sum"] = "mean"
    normalize: bool = False


class LimitsConfig(Struct, frozen=True):
    start: str | tuple[int | str, ...] | None = None
    include: str | tuple[int | str, ...] | None = None
    exclude: str | tuple[int | str, ...] | None = None
    sources: dict[str, Any] | str = {}
    labels: dict[str, Any] | str = {}
    tokens: Positive | None = None
    cost: str = "tokens"


class EmbeddingsConfig(Struct, frozen=True):
    path: str | None = None


class GraphConfig(Struct, frozen=True):
    threshold: str | float = "auto"
    degree: Annotated[float, msgspec.Meta(ge=0)] = 4.0
    propagation: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    path: str | None = None


class ExportConfig(Struct, frozen=True):
    layout: Literal["mig", "sharegpt", "openai", "alpaca"] | None = None
    runners_up: Annotated[int, msgspec.Meta(ge=0)] = 50


class EngineConfig(Struct, frozen=True):
    c1: Positive = 16_384
    c2: Positive = 256
    inner: Literal["auto", "device", "host"] = "auto"
    segment: Positive = 1_024
    checkpoint_every: Annotated[float, msgspec.Meta(ge=0)] = 10.0


class MeshConfig(Struct, frozen=True):
    pool: Literal["all"] | Positive = "all"
    data: Literal["auto"] | Positive = "auto"
    fsdp: Positive = 1
    tensor: Positive = 1
    coordinator: str | None = None
    processes: Positive | None = None
    process: Annotated[int, msgspec.Meta(ge=0)] | None = None


class SelectConfig(Struct, frozen=True):
    """``mig-jax select``, one budget or several (ascending, distinct)."""

    pool: PoolConfig
    embedder: EmbedderConfig
    phi: PhiConfig
    sampler: Any  # the SamplerOptions of the sampler that it names
    n: Positive | tuple[Positive, ...] | None
    out: str
    seed: int = 42
    overwrite: bool = False
    score: ScoreConfig = ScoreConfig()
    graph: GraphConfig = GraphConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    limits: LimitsConfig = LimitsConfig()
    export: ExportConfig = ExportConfig()
    engine: EngineConfig = EngineConfig()
    mesh: MeshConfig = MeshConfig()
    cache: str | None = None

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets in rows, ascending; none where tokens alone are the budget."""
        return () if self.n is None else tuple(sorted({self.n} if isinstance(self.n, int) else set(self.n)))

    def decides(self) -> dict:
        """What the selected rows depend on: all but where they go, how fast, and on which devices."""
        plain = msgspec.to_builtins(self)
        for key in ("out", "overwrite", "mesh", "engine", "cache", "limits"):
            plain.pop(key)
        # Contents count, not where they lie: files, labels, limits and graph are in the run's key by their hashes.
        for part, key in (
            ("pool", "path"),
            ("pool", "valid_tags"),
            ("pool", "n"),
            ("pool", "note"),
            ("pool", "score"),  # score.from has it
            ("graph", "path"),
            ("embeddings", "path"),
            ("embedder", "path"),
            ("embedder", "instruction"),  # labels go in as they are
            ("embedder", "prompt"),
            ("embedder", "tag_threshold"),  # of mig-jax annotate
        ):
            plain[part].pop(key)
        plain["sampler"].pop("workers", None)
        return plain


class BatchOptions(Struct, frozen=True):
    batch_tokens: Literal["auto"] | Positive = "auto"
    save_every: Annotated[float, msgspec.Meta(ge=0)] = 10.0


class EmbedOptions(BatchOptions, frozen=True):
    of: Literal["rows", "labels"] = "rows"


class EmbedConfig(Struct, frozen=True):
    """``mig-jax embed``."""

    pool: PoolConfig
    embedder: EmbedderConfig
    out: str
    embed: EmbedOptions = EmbedOptions()
    overwrite: bool = False
    mesh: MeshConfig = MeshConfig()
    cache: str | None = None


class AnnotateConfig(Struct, frozen=True):
    """``mig-jax annotate``. The settings of an annotator stand beside its code, in mig_jax.annotate."""

    pool: PoolConfig
    embedder: EmbedderConfig
    annotators: str | tuple[str, ...]
    out: str
    tags: Any
    deita: Any
    ifd: Any
    car: Any
    tokens: Any
    rows: Positive | None = None
    plan: bool = False
    annotate: BatchOptions = BatchOptions()
    overwrite: bool = False
    mesh: MeshConfig = MeshConfig()
    cache: str | None = None


class VocabularyOptions(Struct, frozen=True):
    min_count: Positive = 2
    rules: Literal["stem", "spelling"] | None = "stem"
    keep: str = "+#"
    stem_cosine: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None = 0.7
    distance: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = 0.05
    min_samples: Positive = 2
    support: Positive | None = 40
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.99


class VocabularyConfig(Struct, frozen=True):
    """``mig-jax vocabulary``."""

    pool: PoolConfig
    embedder: EmbedderConfig
    out: str
    vocabulary: VocabularyOptions = VocabularyOptions()
    overwrite: bool = False
    mesh: MeshConfig = MeshConfig()
    cache: str | None = None


class GenerateOptions(Struct, frozen=True):
    max_new_tokens: Positive = 256
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    top_k: Positive | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0)] | None = None
    stop: tuple[str, ...] = ()
    chat: Literal["auto"] | bool = "auto"
    system: str | None = None


class GenerateConfig(Struct, frozen=True):
    """``mig-jax generate``."""

    model: ModelConfig
    prompt: str | None = None
    prompts: str | None = None
    out: str | None = None
    overwrite: bool = False
    seed: Annotated[int, msgspec.Meta(ge=0)] = 42
    generate: GenerateOptions = GenerateOptions()
    mesh: MeshConfig = MeshConfig()
    cache: str | None = None


class ReportConfig(Struct, frozen=True):
    """``mig-jax report``."""

    runs: tuple[str, ...] = ()
    out: str | None = None
    overwrite: bool = False


COMMANDS: dict[str, type[Struct]] = {
    "select": SelectConfig,
    "embed": EmbedConfig,
    "annotate": AnnotateConfig,
    "vocabulary": VocabularyConfig,
    "generate": GenerateConfig,
    "report": ReportConfig,
}
