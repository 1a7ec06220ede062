"""The tokenizer inside a GGUF file, as a ``tokenizers.Tokenizer``.

Two kinds: "gpt2", byte-level BPE with its merges, and "llama", SentencePiece's BPE with scores and byte
fallback. Properties that GGUF does not store (normalizer, split, default of BOS) follow from the kind or from
``tokenizer.ggml.pre``; llama.cpp's src/llama-vocab.cpp defines its values.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from mig_jax.core.errors import UserError

_NORMAL, _UNKNOWN, _CONTROL, _USER = 1, 2, 3, 4  # tokenizer.ggml.token_type; 5: unused, 6: byte


@dataclass(frozen=True)
class _Pre:
    """The meaning of a value of ``tokenizer.ggml.pre``.

    Args:
      split: the regular expression that splits text before merging; None: GPT-2's.
      digits: first split off each digit.
      nfc: first normalise to Unicode's composed form.
      whole: a piece that is a token is not merged from its parts (Llama 3).
      bos: whether BOS is added if the file does not specify it.
    """

    split: str | None = None
    digits: bool = False
    nfc: bool = False
    whole: bool = False
    bos: bool = False


_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_GPT2 = _Pre()
_LLAMA3 = _Pre(rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}", whole=True, bos=True)
_QWEN2 = _Pre(rf"{_WORDS}|\p{{N}}|{_REST}", nfc=True)
_TEKKEN = _Pre(
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    whole=True,
    bos=True,
)
PRE = {
    "default": _GPT2,
    "gpt-2": _GPT2,
    # As in SmolLM2's own tokenizer.json and in llama.cpp. transformers' reader of GGUF files does not split digits; the
    # results differ only if two or more blanks precede a digit: "a  1" is [a, Ġ, Ġ, 1] there, [a, ĠĠ, 1] here.
    "smollm": _Pre(digits=True),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _Pre(_QWEN2.split),
    "tekken": _TEKKEN,
}
"""``tokenizer.ggml.pre`` -> its meaning, for the gpt2 kind."""

KINDS = ("gpt2", "llama")


def gguf_tokenizer(metadata: Mapping[str, Any], file: Path) -> Tokenizer:
    """The tokenizer. It adds BOS and EOS as the file specifies, control tokens are special, no truncation, no padding.

    Args:
      metadata: of the file's header.
      file: its path, for messages.

    Raises:
      UserError: lists everything that is missing, inconsistent or of an unknown kind.
    """
    kind, problems = metadata.get("tokenizer.ggml.model"), []
    tokens = _list(metadata, "tokens", str, None, problems)
    types = _list(metadata, "token_type", int, len(tokens), problems) if "tokenizer.ggml.token_type" in metadata else []
    types = types or [_NORMAL] * len(tokens)
    if len(set(tokens)) < len(tokens):
        problems.append(f"tokenizer.ggml.tokens has {Counter(tokens).most_common(1)[0][0]!r} twice or more")
    for name in ("bos", "eos", "eot", "eom", "unknown", "padding"):
        number = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is not None and not (type(number) is int and 0 <= number < len(tokens)):
            problems.append(f"tokenizer.ggml.{name}_token_id is {number!r}, of {len(tokens)} tokens")
    merges, scores, pre = [], [], _GPT2
    if kind not in KINDS:
        problems.append(f"tokenizer.ggml.model is {kind!r}; there is {', '.join(KINDS)}")
    elif kind == "gpt2":
        merges = _list(metadata, "merges", str, None, problems)
        problems += [
            f"tokenizer.ggml.merges has {merge!r}, not two tokens" for merge in merges if merge.count(" ") != 1
        ][:3]
        name = metadata.get("tokenizer.ggml.pre")
        if not isinstance(name, str) or name not in PRE:
            problems.append(f"tokenizer.ggml.pre is {name!r}; there is {', '.join(PRE)}")
        pre = PRE.get(str(name), pre)
    else:
        scores = _list(metadata, "scores", float, len(tokens), problems)
    if problems:
        raise UserError("its tokenizer cannot be used:\n  " + "\n  ".join(problems), where=file)
    try:
        if kind == "gpt2":
            tokenizer = _byte_level(tokens, merges, pre)
        else:
            unknown = metadata.get("tokenizer.ggml.unknown_token_id")
            prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
            tokenizer = _sentencepiece(tokens, scores, types, None if unknown is None else tokens[unknown], prefix)
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"its tokenizer cannot be used: {error}", where=file) from error
    # Tokens of type 5, with which some files pad the vocabulary, are not matched in texts.
    special = [_added(t, True) for t, type_ in zip(tokens, types, strict=True) if type_ in (_UNKNOWN, _CONTROL)]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([_added(t, False) for t, type_ in zip(tokens, types, strict=True) if type_ == _USER])
    _frame(tokenizer, metadata, tokens, default_bos=pre.bos or kind == "llama")
    return tokenizer


def gguf_special_tokens(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens by their names in chat templates (such as ``bos_token``)."""
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {field: metadata.get(f"tokenizer.ggml.{name}_token_id") for field, name in names.items()}
    return {field: tokens[n] for field, n in ids.items() if type(n) is int and 0 <= n < len(tokens)}


def _list(metadata: Mapping[str, Any], name: str, kind: type, length: int | None, problems: list[str]) -> list[Any]:
    """A list of the metadata; if it is invalid, an empty list, and a line is appended to ``problems``."""
    values = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        state = "missing" if values is None else f"no list of {kind.__name__}"
        problems.append(f"tokenizer.ggml.{name} is {state}")
        return []
    if length is not None and len(values) != length:
        problems.append(f"tokenizer.ggml.{name} has {len(values)} entries for {length} tokens")
    return values


def _added(token: str, special: bool) -> AddedToken:
    return AddedToken(token, special=special, normalized=False)


def _byte_level(tokens: list[str], merges: list[str], pre: _Pre) -> Tokenizer:
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    vocabulary = {token: n for n, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=pre.whole))
    if pre.nfc:
        tokenizer.normalizer = normalizers.NFC()  # pyright: ignore[reportAttributeAccessIssue]
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if pre.digits else []
    steps += [pre_tokenizers.Split(Regex(pre.split), "isolated")] if pre.split else []
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre.split is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def _sentencepiece(
    tokens: list[str], scores: list[float], types: list[int], unknown: str | None, prefix: bool
) -> Tokenizer:
    """The kind of Llama 2 and Mistral. A blank is "▁"; with ``prefix``, one is added before the text."""
    model = models.BPE(
        {token: n for n, token in enumerate(tokens)},
        _merges(tokens, scores, types),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    steps: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])  # pyright: ignore[reportAttributeAccessIssue]
    decoding: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    decoding += [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(decoding)  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def _merges(tokens: list[str], scores: list[float], types: list[int]) -> list[tuple[str, str]]:
    """SentencePiece merges the two neighbours whose joint token has the highest score: here as a list, best first.

    Every split of a token into two tokens is a merge; equal scores (runs of blanks) are ordered by the ids of the
    whole, the left and the right part, as in Llama 2's own tokenizer.json.
    """
    ids = {token: n for n, token in enumerate(tokens) if types[n] in (_NORMAL, _USER)}
    merges = []
    for token, n in ids.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                merges.append((-scores[n], n, ids[left], ids[right]))
    return [(tokens[left], tokens[right]) for *_, left, right in sorted(merges)]


def _frame(tokenizer: Tokenizer, metadata: Mapping[str, Any], tokens: list[str], *, default_bos: bool) -> None:
    """Add BOS before and EOS after each text, as the file specifies."""
    framed, special = ["$A"], []
    for name, default, position in (("bos", default_bos, 0), ("eos", False, 2)):
        number = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is not None and metadata.get(f"tokenizer.ggml.add_{name}_token", default):
            framed.insert(position, name)
            special.append((name, number))
    if special:
        # The template uses the names "bos" and "eos": in a token's text, blanks and "$" would be template syntax.
        entries = [{"id": name, "ids": [number], "tokens": [tokens[number]]} for name, number in special]
        tokenizer.post_processor = processors.TemplateProcessing(single=framed, special_tokens=entries)  # pyright: ignore[reportAttributeAccessIssue]
