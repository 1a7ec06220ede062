"""Tokenizers from GGUF metadata: SmolLM2's ids, SentencePiece's algorithm written out, splits by hand, refusals."""

import gzip
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import SPM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.gguf_header import read_metadata
from mig_jax.models.tokenizers.gguf_tokenizer import PRE, gguf_special_tokens, gguf_tokenizer

FILE = Path("x.gguf")


@pytest.fixture(scope="module")
def smollm(smollm_file: Path) -> Tokenizer:
    return gguf_tokenizer(read_metadata(smollm_file), smollm_file)


_TASK = "Below is an instruction that describes a task"
_ANSWER = "Write a response that appropriately completes the request.\n\n### Instruction:\n"


def test_smollm2_ids_are_transformers(smollm, golden):
    """160 texts of the recorded IFD run, as Cherry_LLM and Superfiltering put them together; cut to 512 tokens."""
    recorded = json.loads(gzip.decompress((golden / "ifd" / "rows.json.gz").read_bytes()))
    seen = 0
    for row, record in zip(recorded["rows"], recorded["records"], strict=True):
        ask, given_too, answer = row["instruction"], row["input"], row["output"]
        with_input = (
            f"{_TASK}, paired with an input that provides further context. {_ANSWER}{ask}\n\n### Input:\n{given_too}"
        )
        alpaca = with_input if given_too else f"{_TASK}. {_ANSWER}{ask}"
        plain = f"{ask}\n{given_too}\n" if given_too else f"{ask}\n"
        texts = {
            f"### Response:{answer}": record["direct_ids"],
            f"{alpaca}\n\n### Response:{answer}": record["cond_ids"],
            answer: record["super"]["direct_ids"],
            plain + answer: record["super"]["cond_ids"],
        }
        for text, ids in texts.items():
            found = smollm.encode(text).ids
            skipped = record["skip"] is not None  # the one row over the limit: cut twice over
            assert found[: len(ids)] == ids and (len(found) == len(ids) or skipped), text
            assert smollm.decode(found) == text
            seen += 1
    assert seen >= 150  # some answers are the same text


def test_smollm2_digits_and_control_tokens(smollm):
    """By hand: every digit alone, blanks before one kept together, the control tokens one id each."""
    assert smollm.encode("a  12").tokens == ["a", "ĠĠ", "1", "2"]
    assert smollm.encode("12345").tokens == ["1", "2", "3", "4", "5"]
    ids = smollm.encode("<|im_start|>user\nhi<|im_end|>\n").ids
    assert ids == [1, 4093, 198, 6004, 2, 198] and smollm.decode(ids) == "user\nhi\n"
    assert smollm.encode("").ids == []
    assert smollm.get_vocab_size() == 49152


HARD = [
    "",
    " ",
    "  ",
    "a",
    " a",
    "a  12",
    "x\n\n 3\ty ",
    "don't DON'T",
    "naïve e\u0301 😀 日本",
    "1234567",
    "\x00\r\n",
    "…!?  ",
]


def trained() -> tuple[Tokenizer, dict]:
    """A byte-level BPE of 300 tokens, and what GGUF would say of it."""
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
    )  # fmt: skip
    own.train_from_iterator(["the cat and the hat sat on the mat, don't they?  12 34 the"] * 3, trainer)
    parts = json.loads(own.to_str())["model"]
    tokens = sorted(parts["vocab"], key=parts["vocab"].get)
    said = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in parts["merges"]],
        "tokenizer.ggml.eos_token_id": 0,
    }
    return own, said


def test_byte_level_equals_the_tokenizer_it_came_from():
    own, said = trained()
    mine = gguf_tokenizer(said, FILE)
    for text in [*HARD, "the cat<|end|> that", "<|end|>"]:
        assert mine.encode(text).ids == own.encode(text).ids, text
        assert mine.decode(mine.encode(text).ids) == text.replace("<|end|>", "")


def split(name: str, text: str) -> list[str]:
    """The pieces within which merging happens, as text."""
    _, said = trained()
    mine = gguf_tokenizer(said | {"tokenizer.ggml.pre": name}, FILE)
    return [text[a:b] for _, (a, b) in mine.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("gpt-2", ["a", " ", " 1234", "x", "\n", "\n", "You", "'", "LL", "'ll", " ?!", "\n"]),
        ("smollm", ["a", "  ", "1", "2", "3", "4", "x", "\n", "\n", "You", "'", "LL", "'ll", " ?!", "\n"]),
        ("llama-bpe", ["a", " ", " ", "123", "4", "x", "\n\n", "You", "'LL", "'ll", " ?!\n"]),
        ("qwen2", ["a", " ", " ", "1", "2", "3", "4", "x", "\n\n", "You", "'LL", "'ll", " ?!\n"]),
        ("deepseek-r1-qwen", ["a", " ", " ", "1", "2", "3", "4", "x", "\n\n", "You", "'LL", "'ll", " ?!\n"]),
        ("tekken", ["a", " ", " ", "1", "2", "3", "4", "x", "\n\n", "You", "'LL", "'ll", " ?!\n"]),
    ],
)
def test_splits_by_hand(name, pieces):
    assert split(name, "".join(pieces)) == pieces


def test_every_pre_tokenizer_keeps_the_text():
    _, said = trained()
    for name, pre in PRE.items():
        mine = gguf_tokenizer(said | {"tokenizer.ggml.pre": name}, FILE)
        for text in HARD:
            composed = text.replace("e\u0301", "é") if pre.nfc else text
            assert mine.decode(mine.encode(text).ids) == composed, (name, text)
    assert split("tekken", "camelCase") == ["camel", "Case"]  # by case, unlike the others
    assert split("qwen2", "camelCase") == ["camelCase"]


def test_llama3_takes_a_whole_token_without_its_merges():
    _, said = trained()
    said["tokenizer.ggml.tokens"][5] = "zq"  # no merge makes it
    assert gguf_tokenizer(said | {"tokenizer.ggml.pre": "llama-bpe"}, FILE).encode("zq").ids == [5]
    assert gguf_tokenizer(said, FILE).encode("zq").ids != [5]


def joined(text: str, said: dict) -> list[int]:
    """SentencePiece's algorithm: join the neighbours with the best joint score, the first of equals, while any.

    What is then no token becomes its bytes.
    """
    tokens, types = said["tokenizer.ggml.tokens"], said["tokenizer.ggml.token_type"]
    score = {t: s for t, s, of in zip(tokens, said["tokenizer.ggml.scores"], types, strict=True) if of == 1}
    pieces = list(("▁" + text).replace(" ", "▁")) if text else []
    while True:
        best = max(
            ((score[a + b], -n) for n, (a, b) in enumerate(pairwise(pieces)) if a + b in score),
            default=None,
        )
        if best is None:
            break
        at = -best[1]
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    found = []
    for piece in pieces:
        found += [tokens.index(piece)] if piece in score else [tokens.index(f"<0x{b:02X}>") for b in piece.encode()]
    return found


WITH_BYTES = SPM | {
    "tokenizer.ggml.tokens": [*SPM["tokenizer.ggml.tokens"], *(f"<0x{n:02X}>" for n in range(256)), "ca", "▁▁", "bb"],
    "tokenizer.ggml.token_type": [*SPM["tokenizer.ggml.token_type"], *[6] * 256, 1, 1, 1],
    "tokenizer.ggml.scores": [*SPM["tokenizer.ggml.scores"], *[0.0] * 256, -1.5, -20.0, -21.0],
}
TINY_SPM = gguf_tokenizer(WITH_BYTES, FILE)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abc  é😀\n▁", max_size=20))
def test_sentencepiece_by_its_algorithm(text):
    assert TINY_SPM.encode(text).ids == [1, *joined(text, WITH_BYTES)]
    assert TINY_SPM.encode(text, add_special_tokens=False).ids == joined(text, WITH_BYTES)
    assert TINY_SPM.decode(TINY_SPM.encode(text).ids) == text.replace("▁", " ")


def test_sentencepiece_special_tokens():
    """A control token in a text is that token, and the text after it begins with a blank of its own."""
    assert TINY_SPM.encode("ab</s>ab").ids == [1, 10, 2, 10]
    assert TINY_SPM.encode("<unk>").ids == [1, 0]
    assert TINY_SPM.decode([1, 10, 2]) == "ab"
    plain = gguf_tokenizer(WITH_BYTES | {"tokenizer.ggml.add_space_prefix": False}, FILE)
    assert plain.encode("ab").ids == [1, 8] and plain.decode([1, 10]) == " ab"
    user = [*WITH_BYTES["tokenizer.ggml.token_type"]]
    user[11] = 4  # "abc", user-defined: matched before anything is merged, and part of the text
    found = gguf_tokenizer(WITH_BYTES | {"tokenizer.ggml.token_type": user}, FILE)
    assert found.encode("babcb").ids[-2:] == [3, 5] and 11 in found.encode("babcb").ids
    assert found.decode([11]) == "abc"


@pytest.mark.parametrize(
    ("pre", "said", "frame"),
    [
        (None, {}, ([1], [])),
        (None, {"add_bos_token": False}, ([], [])),
        (None, {"add_eos_token": True}, ([1], [2])),
        ("gpt-2", {"bos_token_id": 7}, ([], [])),
        ("gpt-2", {"bos_token_id": 7, "add_bos_token": True, "add_eos_token": True}, ([7], [0])),
        ("llama-bpe", {"bos_token_id": 7}, ([7], [])),  # usual there, where the file does not say
        ("llama-bpe", {"bos_token_id": 7, "add_bos_token": False}, ([], [])),
        ("qwen2", {"add_bos_token": True}, ([], [])),  # there is none to add
    ],
)
def test_bos_and_eos(pre, said, frame):
    base = WITH_BYTES if pre is None else trained()[1] | {"tokenizer.ggml.pre": pre}
    mine = gguf_tokenizer(base | {f"tokenizer.ggml.{key}": value for key, value in said.items()}, FILE)
    before, after = frame
    for text in ("ab", ""):
        bare = mine.encode(text, add_special_tokens=False).ids
        assert mine.encode(text).ids == before + bare + after
        mine.enable_truncation(1 + len(before + after))
        assert mine.encode(text).ids == before + bare[:1] + after
        mine.no_truncation()


def test_special_tokens_by_name():
    assert gguf_special_tokens(SPM) == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert gguf_special_tokens({}) == {}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model": "t5"}, ["tokenizer.ggml.model is 't5'; there is gpt2, llama"]),
        ({"pre": "mystery"}, ["tokenizer.ggml.pre is 'mystery'; there is default, gpt-2, smollm"]),
        ({"pre": None}, ["tokenizer.ggml.pre is None"]),
        ({"pre": ["x"]}, ["tokenizer.ggml.pre is ['x']"]),
        ({"merges": None}, ["tokenizer.ggml.merges is missing"]),
        ({"merges": ["a b c", "ab"]}, ["merges has 'a b c', not two tokens", "merges has 'ab'"]),
        ({"merges": ["nosuch token"]}, ["cannot be used"]),
        ({"tokens": "abc"}, ["tokenizer.ggml.tokens is no list of str"]),
        ({"token_type": [1]}, ["token_type has 1 entries for"]),
        ({"model": "llama"}, ["tokenizer.ggml.scores is missing"]),
        ({"model": "llama", "scores": [1, 2]}, ["tokenizer.ggml.scores is no list of float"]),
        ({"bos_token_id": 9999, "pre": "x"}, ["bos_token_id is 9999, of", "tokenizer.ggml.pre is 'x'"]),
    ],
)
def test_refusals(changed, says):
    _, said = trained()
    said = said | {f"tokenizer.ggml.{key}": value for key, value in changed.items()}
    with pytest.raises(UserError) as error:
        gguf_tokenizer({key: value for key, value in said.items() if value is not None}, FILE)
    for one in ["x.gguf: its tokenizer", *says]:
        assert one in str(error.value)


def test_a_token_twice():
    _, said = trained()
    said["tokenizer.ggml.tokens"][7] = said["tokenizer.ggml.tokens"][6]
    with pytest.raises(UserError, match=rf"tokens has {re.escape(repr(said['tokenizer.ggml.tokens'][6]))} twice"):
        gguf_tokenizer(said, FILE)
