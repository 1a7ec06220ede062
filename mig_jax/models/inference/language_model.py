"""A decoder with its tokenizer: the input of ``generate`` and ``token_logprobs``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int64

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.architectures import ARCHITECTURES
from mig_jax.models.checkpoints.checkpoint import ModelSpec, find_checkpoint
from mig_jax.models.checkpoints.decoder_config import DecoderConfig
from mig_jax.models.inference.fingerprint import fingerprint_of, max_length_of
from mig_jax.models.inference.loaded import LoadedModel, load_weights
from mig_jax.models.networks.families import FAMILIES
from mig_jax.models.tokenizers.text_tokenizer import TextTokenizer, load_text_tokenizer
from mig_jax.models.tokenizers.tokens import Tokens

_NAMED = 5  # texts that a message names; the others are counted


class _Described:
    """A decoder's properties that need no weights."""

    name: str
    tokenizer: TextTokenizer
    config: DecoderConfig
    max_length: int
    fingerprint: str

    def check(self, tokens: Tokens, *, what: str = "text", room: int = 0) -> None:
        """UserError naming the texts that are too long, with ``room`` more tokens, or have ids out of range."""
        limit, wrong = self.max_length - room, []
        for n in np.flatnonzero(tokens.length > limit):
            more = f", and {room} new tokens make more than" if room else "; the model takes at most"
            wrong.append(f"{what} {n} has {tokens.length[n]} tokens{more} {self.max_length}")
        outside = np.flatnonzero((tokens.id < 0) | (tokens.id >= self.config.vocab_size))
        for n, at in _first_of_each_text(tokens, outside):
            wrong.append(f"{what} {n} has the id {tokens.id[at]}; must be 0 to {self.config.vocab_size - 1}")
        if wrong:
            more = [f"and {len(wrong) - _NAMED} more"] if len(wrong) > _NAMED else []
            raise UserError(f"model {self.name}: " + "; ".join([*wrong[:_NAMED], *more]))


@dataclass(frozen=True)
class LanguageModel(_Described):
    """A loaded decoder.

    Args:
      name: the model's name in messages.
      loaded: the ``Decoder`` with its head, on the devices between which the rows of a batch are split.
      tokenizer: strings <-> ids, without a length limit.
      config: of the decoder.
      max_length: tokens that a text may have, an answer included; at most ``config.max_positions``.
      fingerprint: sha256 over everything that decides a log-probability: weights, config, tokenizer, type.
    """

    name: str
    loaded: LoadedModel
    tokenizer: TextTokenizer
    config: DecoderConfig
    max_length: int
    fingerprint: str


@dataclass(frozen=True)
class FoundModel(_Described):
    """A decoder whose files were found and checked, its weights not yet read.

    Args:
      name, tokenizer, config, max_length, fingerprint: as of ``LanguageModel``.
      load: reads the weights; UserError where they do not fit, see ``load_model``.
    """

    name: str
    tokenizer: TextTokenizer
    config: DecoderConfig
    max_length: int
    fingerprint: str
    load: Callable[[], LanguageModel]


def load_language_model(spec: ModelSpec, *, mesh: Mesh | None = None) -> LanguageModel:
    """Find, check and load a decoder with its head and its tokenizer.

    Raises:
      UserError: see ``find_language_model`` and ``load_model``.
    """
    return find_language_model(spec, mesh=mesh).load()


def find_language_model(spec: ModelSpec, *, mesh: Mesh | None = None) -> FoundModel:
    """Find and check a decoder. The weights are not needed for cached results or for tokenising.

    Args:
      mesh: see ``LoadedModel``.

    Raises:
      UserError: see ``find_checkpoint`` and ``load_text_tokenizer``; the model is an encoder, its output table is
        missing, or its max_length is beyond its positions.
    """
    checkpoint = find_checkpoint(spec)
    named = checkpoint.config["model_type"]
    architecture = ARCHITECTURES[named]
    where = str(checkpoint.config_file)
    if not architecture.causal:
        causal = ", ".join(sorted(name for name, other in ARCHITECTURES.items() if other.causal))
        raise UserError(f"{where}: architecture {named!r} is an encoder and generates no text; must be one of {causal}")
    config = architecture.read_config(checkpoint.config, where)
    max_length = max_length_of(spec, config.max_positions, where)
    # It may have more words than the output table (an added <pad> that is never used); ``check`` reports the ids that
    # occur in texts.
    tokenizer = load_text_tokenizer(checkpoint.tokenizer_source)
    tensors = checkpoint.tensors()
    if not config.tied and not any(tensor.key.endswith("lm_head.weight") for tensor in tensors):
        raise UserError(
            f"{where}: tie_word_embeddings is not true, and {checkpoint.folder} has no lm_head.weight: a model whose "
            "output table is its input table needs tie_word_embeddings=true there; an embedder's or a "
            "classifier's checkpoint has no output table and generates no text"
        )
    fingerprint = fingerprint_of(checkpoint, spec, tokenizer.sha256)

    def load() -> LanguageModel:
        loaded = load_weights(FAMILIES[named], config, tensors, spec, mesh, head=True)
        return LanguageModel(spec.name, loaded, tokenizer, config, max_length, fingerprint)

    return FoundModel(spec.name, tokenizer, config, max_length, fingerprint, load)


def as_tokens(texts: Tokens | Sequence[Sequence[int]]) -> Tokens:
    """Lists of ids as one flat array."""
    if isinstance(texts, Tokens):
        return texts
    ptr: Int64[np.ndarray, " N1"] = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(ids) for ids in texts], out=ptr[1:])
    return Tokens(np.fromiter((i for ids in texts for i in ids), np.int32, int(ptr[-1])), ptr)


def _first_of_each_text(tokens: Tokens, index: np.ndarray) -> list[tuple[int, int]]:
    """(text, index) of the first of the ascending token indices in each text."""
    text = np.searchsorted(tokens.ptr, index, side="right") - 1
    first = np.flatnonzero(np.diff(text, prepend=-1))
    return list(zip(text[first].tolist(), index[first].tolist(), strict=True))
