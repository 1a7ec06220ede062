"""Folders with SentencePiece's files and no tokenizer.json: the ids are SentencePiece's own."""

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from mig_jax.core.errors import UserError
from mig_jax.models.tokenizers.text_tokenizer import load_text_tokenizer

TEXTS = ["the cat sat on the mat", "the dog and the cat", "a  b   c", "numbers 12 345", "café über"] * 20
LLAMA: dict[str, Any] = {
    "model_type": "bpe",
    "vocab_size": 330,
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "split_digits": True,
}
HARD = [
    "",
    " ",
    "  two blanks",
    "x  ",
    "\n\tx",
    "日本 naïve 😀 12",
    "thethe  cat",
    "\x00",
    "a" * 50,
    "▁a ▁",
    "cafe\u0301",
]


def trained(**options) -> bytes:
    """A model of a few sentences; takes a few hundredths of a second."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=out, hard_vocab_limit=False, minloglevel=2, **options
    )
    return out.getvalue()


LLAMA_MODEL = trained(**LLAMA)
OWN = sentencepiece.SentencePieceProcessor(model_proto=LLAMA_MODEL)


@pytest.fixture
def folder(tmp_path) -> Path:
    """As Llama 1's: its tokenizer_config.json names the special tokens by empty strings."""
    (tmp_path / "tokenizer.model").write_bytes(LLAMA_MODEL)
    config = {"tokenizer_class": "LLaMATokenizer", "bos_token": "", "eos_token": "", "unk_token": ""}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_ids_are_sentencepiece_s_after_bos(folder):
    mine, rng = load_text_tokenizer(folder), random.Random(0)
    random_texts = ["".join(rng.choices(" abcdehmnost1é日", k=rng.randrange(30))) for _ in range(200)]
    texts = [*TEXTS[:5], *HARD, *random_texts]
    assert mine.encode(texts) == [[OWN.bos_id(), *ids] for ids in OWN.encode(texts)]
    assert mine.encode_plain(texts) == OWN.encode(texts)
    assert [mine.decode(ids) for ids in OWN.encode(texts)] == [OWN.decode(ids) for ids in OWN.encode(texts)]
    assert (mine.bos_id, mine.eos_ids, mine.pad_id, mine.vocab_size) == (1, {2}, None, OWN.get_piece_size())
    assert mine.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert mine.encode_plain(["the</s>"]) == [[*OWN.encode("the"), 2]]
    assert load_text_tokenizer(folder, 3).run(["the cat sat on", "the"], True) == (
        [[1, *OWN.encode("the cat sat on")[:2]], [1, *OWN.encode("the")]], 1
    )  # fmt: skip


def test_what_its_config_asks_for(folder):
    config = {"add_bos_token": False, "add_eos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_text_tokenizer(folder).encode(["the cat"]) == [[*OWN.encode("the cat"), 2]]


@pytest.mark.parametrize("newer", [True, False])
def test_tokens_that_were_added(folder, newer):
    """A <pad> at the end of the table, as fine-tunes of Llama have it; tokens of the model are named again."""
    size = OWN.get_piece_size()
    if newer:
        entries = {str(size): {"content": "<pad>", "special": True}, "1": {"content": "<s>", "special": True},
                   str(size + 1): {"content": "<user>", "special": False, "rstrip": True}}  # fmt: skip
        said = {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": entries, "pad_token": "<pad>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
    else:
        (folder / "added_tokens.json").write_text(json.dumps({"<user>": size + 1, "<pad>": size}))
        (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "<pad>"}}))
    mine = load_text_tokenizer(folder)
    assert (mine.pad_id, mine.vocab_size) == (size, size + 2)
    assert mine.encode(["the<pad><user>"]) == [[1, *OWN.encode("the"), size, size + 1]]
    assert mine.decode([size, size + 1]) == "<user>"


def test_added_tokens_with_a_gap(folder):
    (folder / "added_tokens.json").write_text(json.dumps({"<pad>": 400}))
    with pytest.raises(UserError, match="the added token '<pad>' has the id 400, but the next id is 330"):
        load_text_tokenizer(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<pad>": "400"}))
    with pytest.raises(UserError, match=r"added_tokens\.json must be an object, token -> id"):
        load_text_tokenizer(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "unigram"}, "it is not BPE"),
        ({"byte_fallback": False, "vocab_size": 60}, "it has no byte fallback"),
        ({"normalization_rule_name": "nmt_nfkc"}, "it rewrites characters"),
        ({"remove_extra_whitespaces": True}, "it drops blanks"),
        ({"treat_whitespace_as_suffix": True}, "it ends words with blanks"),
    ],
)
def test_models_of_another_kind(folder, changes, said):
    """transformers would take them for Llama's, and its ids would be others."""
    (folder / "tokenizer.model").write_bytes(trained(**LLAMA | changes))
    with pytest.raises(UserError, match=rf"tokenizer\.model: not of Llama's kind: .*{said}.*tokenizer\.json"):
        load_text_tokenizer(folder)


def test_no_sentencepiece_model(folder):
    (folder / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")  # tiktoken's, as Llama 3's own
    with pytest.raises(UserError, match=r"tokenizer\.model: cannot be read as a SentencePiece model"):
        load_text_tokenizer(folder)


def test_xlm_roberta_s(tmp_path):
    """Its model puts <s>, <pad>, </s>, <unk> before the file's pieces, of which three fall away: ids are one more."""
    model = trained(model_type="unigram", vocab_size=60)
    own = sentencepiece.SentencePieceProcessor(model_proto=model)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model)
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    mine = load_text_tokenizer(tmp_path)
    texts = ["the cat sat", "  two blanks", "日本 numbers 12", "x  ", ""]
    assert mine.encode(texts) == [[0, *(n + 1 if n else 3 for n in ids), 2] for ids in own.encode(texts)]
    assert mine.encode(["the \ud83d"]) == mine.encode(["the \ufffd"])  # half of a surrogate pair
    assert mine.run(["the cat sat", "the"], True).cut == 0
    found = load_text_tokenizer(tmp_path, 4).run(["the cat sat", "th", ""], True)
    assert found == ([[0, *(n + 1 for n in own.encode(text)[:2]), 2] for text in ("the cat sat", "th", "")], 2)
