"""The tokenizer inside a GGUF file, as a ``tokenizers.Tokenizer``.

Two kinds: "gpt2", byte-level BPE with its merges, and "llama", SentencePiece's BPE with scores and bytes to fall back
on. What GGUF does not say (normalizer, split, whether BOS is usual) is fixed by the kind or by ``tokenizer.ggml.pre``;
llama.cpp's src/llama-vocab.cpp is where these names are defined.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from mig_jax.core.errors import UserError

_NORMAL, _UNKNOWN, _CONTROL, _USER = 1, 2, 3, 4  # tokenizer.ggml.token_type; 5 is unused, 6 a byte


@dataclass(frozen=True)
class _Pre:
    """What ``tokenizer.ggml.pre`` stands for.

    Args:
      split: how text is cut before merging; None: as GPT-2 does.
      digits: each digit alone, first of all.
      nfc: Unicode's composed form, first of all.
      whole: a piece that is a token is not merged from its parts (Llama 3).
      bos: BOS goes first where the file does not say.
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
    # As SmolLM2's own tokenizer.json and llama.cpp have it. transformers' reader of GGUF files leaves the digits out,
    # which differs only where two or more blanks stand before a digit: "a  1" is [a, Ġ, Ġ, 1] there, [a, ĠĠ, 1] here.
    "smollm": _Pre(digits=True),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _Pre(_QWEN2.split),
    "tekken": _TEKKEN,
}
"""``tokenizer.ggml.pre`` -> what it means, for the gpt2 kind."""

KINDS = ("gpt2", "llama")


def gguf_tokenizer(metadata: Mapping[str, Any], file: Path) -> Tokenizer:
    """The tokenizer, with BOS and EOS added as the file says, control tokens special, no limit and no padding.

    Args:
      metadata: of the file's header.
      file: for messages.

    Raises:
      UserError: all that is missing, inconsistent or of an unknown kind.
    """
    kind, wrong = metadata.get("tokenizer.ggml.model"), []
    tokens = _list(metadata, "tokens", str, None, wrong)
    types = _list(metadata, "token_type", int, len(tokens), wrong) if "tokenizer.ggml.token_type" in metadata else []
    types = types or [_NORMAL] * len(tokens)
    if len(set(tokens)) < len(tokens):
        wrong.append(f"tokenizer.ggml.tokens has {Counter(tokens).most_common(1)[0][0]!r} twice or more")
    for name in ("bos", "eos", "eot", "eom", "unknown", "padding"):
        number = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is not None and not (type(number) is int and 0 <= number < len(tokens)):
            wrong.append(f"tokenizer.ggml.{name}_token_id is {number!r}, of {len(tokens)} tokens")
    merges, scores, pre = [], [], _GPT2
    if kind not in KINDS:
        wrong.append(f"tokenizer.ggml.model is {kind!r}; there is {', '.join(KINDS)}")
    elif kind == "gpt2":
        merges = _list(metadata, "merges", str, None, wrong)
        wrong += [f"tokenizer.ggml.merges has {one!r}, not two tokens" for one in merges if one.count(" ") != 1][:3]
        name = metadata.get("tokenizer.ggml.pre")
        if not isinstance(name, str) or name not in PRE:
            wrong.append(f"tokenizer.ggml.pre is {name!r}; there is {', '.join(PRE)}")
        pre = PRE.get(str(name), pre)
    else:
        scores = _list(metadata, "scores", float, len(tokens), wrong)
    if wrong:
        raise UserError(f"{file}: its tokenizer cannot be used:\n  " + "\n  ".join(wrong))
    try:
        if kind == "gpt2":
            tokenizer = _byte_level(tokens, merges, pre)
        else:
            unknown = metadata.get("tokenizer.ggml.unknown_token_id")
            prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
            tokenizer = _sentencepiece(tokens, scores, types, None if unknown is None else tokens[unknown], prefix)
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{file}: its tokenizer cannot be used: {error}") from error
    # Not matched in texts: type 5, with which some files fill the table up to a round number.
    special = [_added(t, True) for t, of in zip(tokens, types, strict=True) if of in (_UNKNOWN, _CONTROL)]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([_added(t, False) for t, of in zip(tokens, types, strict=True) if of == _USER])
    _frame(tokenizer, metadata, tokens, default_bos=pre.bos or kind == "llama")
    return tokenizer


def gguf_special_tokens(metadata: Mapping[str, Any]) -> dict[str, str]:
    """``bos_token`` and the like -> the token, as chat templates call them."""
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {field: metadata.get(f"tokenizer.ggml.{name}_token_id") for field, name in names.items()}
    return {field: tokens[n] for field, n in ids.items() if type(n) is int and 0 <= n < len(tokens)}


def _list(metadata: Mapping[str, Any], name: str, of: type, length: int | None, wrong: list[str]) -> list[Any]:
    """A list of the metadata, or an empty one and a line for what is wrong with it."""
    found = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(found, list) or not all(type(value) is of for value in found):
        state = "missing" if found is None else f"no list of {of.__name__}"
        wrong.append(f"tokenizer.ggml.{name} is {state}")
        return []
    if length is not None and len(found) != length:
        wrong.append(f"tokenizer.ggml.{name} has {len(found)} entries for {length} tokens")
    return found


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
    """Llama 2's and Mistral's; a blank is "▁", one goes before the text and after each control token."""
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
    back: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    back += [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(back)  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def _merges(tokens: list[str], scores: list[float], types: list[int]) -> list[tuple[str, str]]:
    """SentencePiece joins the two neighbours whose joint token has the highest score: as a list of merges, best first.

    Every way to cut a token in two tokens is a merge; equals (runs of blanks) stand by the ids of the whole, the left
    and the right part, as in Llama 2's own tokenizer.json.
    """
    known = {token: n for n, token in enumerate(tokens) if types[n] in (_NORMAL, _USER)}
    found = []
    for token, n in known.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in known and right in known:
                found.append((-scores[n], n, known[left], known[right]))
    return [(tokens[left], tokens[right]) for *_, left, right in sorted(found)]


def _frame(tokenizer: Tokenizer, metadata: Mapping[str, Any], tokens: list[str], *, default_bos: bool) -> None:
    """BOS before and EOS after each text, where the file says so."""
    framed, special = ["$A"], []
    for name, default, at in (("bos", default_bos, 0), ("eos", False, 2)):
        number = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is not None and metadata.get(f"tokenizer.ggml.add_{name}_token", default):
            framed.insert(at, name)
            special.append((name, number))
    if special:
        # The template's own names, "bos" and "eos": a token may hold blanks and "$", which the template would read.
        entries = [{"id": name, "ids": [number], "tokens": [tokens[number]]} for name, number in special]
        tokenizer.post_processor = processors.TemplateProcessing(single=framed, special_tokens=entries)  # pyright: ignore[reportAttributeAccessIssue]
