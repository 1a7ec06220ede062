"""One type for all tokenizers: from tokenizer.json, older files, GGUF; ids of ends, limits, and what is refused."""

import json
from pathlib import Path

import pytest
from tiny_gguf import tiny_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints import gguf_header
from mig_jax.models.tokenizers.text_tokenizer import load_text_tokenizer

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}</s>{% endfor %}"
VOCABULARY = {"<s>": 0, "</s>": 1, "<pad>": 2, **{t: n for n, t in enumerate("Ġabcdé", 3)}}


def byte_level() -> Tokenizer:
    """Its letters are its words; <s> goes before each text; with limits that must be lifted."""
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(VOCABULARY))
    own = Tokenizer(models.BPE(VOCABULARY | {t: n for n, t in enumerate(alphabet, len(VOCABULARY))}, []))
    own.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>", "<pad>")])
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    own.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    own.enable_truncation(3)
    own.enable_padding(length=5)
    return own


@pytest.fixture
def folder(tmp_path) -> Path:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "chat_template": TEMPLATE}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_folder(folder):
    mine = load_text_tokenizer(folder)
    assert mine.encode(["ab cd", "", "a</s>b"]) == [[0, 4, 5, 3, 6, 7], [0], [0, 4, 1, 5]]
    assert mine.encode_plain(["ab cd", "", "<s>a"]) == [[4, 5, 3, 6, 7], [], [0, 4]]
    assert mine.encode([]) == mine.encode_plain([]) == []
    assert mine.decode([0, 4, 5, 3, 6, 1, 2]) == "ab c"
    assert (mine.bos_id, mine.eos_ids, mine.pad_id) == (0, {1}, 2)
    assert mine.vocab_size == 1 + max(byte_level().get_vocab().values())
    assert mine.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    prompt = mine.prompt([{"role": "user", "content": "ab"}])
    assert prompt == "<s>ab</s>" and mine.encode_plain([prompt]) == [[0, 4, 5, 1]]


def test_a_limit(folder):
    mine = load_text_tokenizer(folder, 2)
    assert mine.encode(["abc", "a", ""]) == [[0, 4], [0, 4], [0]]
    assert mine.encode_plain(["abc"]) == [[4, 5]]


def test_half_a_surrogate_pair(folder):
    mine = load_text_tokenizer(folder)
    assert mine.decode(mine.encode(["a\ud83d b", "a"])[0]) == "a\ufffd b"
    assert mine.encode(["a\ud83d", "a"])[1] == [0, 4]


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({"generation_config.json": [1, 7], "config.json": 5}, {1, 7}),
        ({"generation_config.json": None, "config.json": 5}, {5}),
        ({"config.json": [5, 6]}, {5, 6}),
        ({}, {1}),
    ],
)
def test_which_tokens_end_a_text(folder, files, ends):
    for name, said in files.items():
        (folder / name).write_text(json.dumps({"eos_token_id": said}))
    assert load_text_tokenizer(folder).eos_ids == ends


def test_ends_that_are_none(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(UserError, match="eos_token_id=</s>: must be a token id or a list of them"):
        load_text_tokenizer(folder)


def test_sha256_is_of_every_file(folder):
    first = load_text_tokenizer(folder).sha256
    assert len(first) == 64 and first == load_text_tokenizer(folder, 7).sha256
    (folder / "chat_template.jinja").write_text("other")
    second = load_text_tokenizer(folder)
    assert second.sha256 != first and second.template == "other"


def test_gguf(tmp_path):
    more = {"tokenizer.chat_template": TEMPLATE, "tokenizer.ggml.eot_token_id": 5}
    mine = load_text_tokenizer(tiny_file(tmp_path / "x.gguf", more=more), 4)
    assert mine.encode(["ab", "a a a a", ""]) == [[1, 10], [1, 7, 7, 7], [1]]
    assert mine.encode_plain(["<s>ab"]) == [[1, 10]] and mine.decode([1, 10, 7]) == "ab a"
    assert (mine.bos_id, mine.eos_ids, mine.pad_id, mine.vocab_size) == (1, {2, 5}, None, 12)
    assert mine.prompt([{"role": "user", "content": "ab"}]) == "<s>ab</s>"
    other = load_text_tokenizer(tiny_file(tmp_path / "y.gguf", more=more | {"tokenizer.ggml.add_bos_token": False}))
    assert other.encode(["ab"]) == [[10]] and other.sha256 != mine.sha256


def test_a_gguf_header_is_read_once(tmp_path, monkeypatch):
    """For the vocabulary and the template in it."""
    read, calls = gguf_header.read_header, []
    monkeypatch.setattr(gguf_header, "read_header", lambda file: calls.append(file) or read(file))
    file = tiny_file(tmp_path / "x.gguf", more={"tokenizer.chat_template": TEMPLATE})
    assert load_text_tokenizer(file).template == TEMPLATE and calls == [file]


def test_what_was_cut_is_counted(folder):
    run = load_text_tokenizer(folder, 3).run
    assert run(["abc", "ab", "a", "abcd"], True) == ([[0, 4, 5], [0, 4, 5], [0, 4], [0, 4, 5]], 2)
    assert run(["abc", "abcd"], False) == ([[4, 5, 6], [4, 5, 6]], 1)
    assert load_text_tokenizer(folder).run(["abcd"], True).cut == 0


def test_older_files_through_transformers(tmp_path):
    """vocab.json and merges.txt, with no tokenizer.json."""
    vocabulary = byte_level().get_vocab()
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary | {"ab": len(vocabulary)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    config = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}
    config["unk_token"] = "<pad>"  # else one more token is made up, which GPT-2 has
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    mine = load_text_tokenizer(tmp_path)
    ab = len(vocabulary)
    assert mine.encode_plain(["ab a</s>", ""]) == [[ab, 3, 4, 1], []]
    assert mine.decode([ab, 3, 4, 1]) == "ab a" and mine.bos_id == 0 and mine.eos_ids == {1}
    assert load_text_tokenizer(tmp_path, 2).encode_plain(["ab a"]) == [[ab, 3]]
    assert mine.encode([]) == [] and mine.vocab_size == ab + 1
    assert mine.prompt([{"role": "user", "content": "a"}]) == "<s>a</s>"


def test_no_code_of_a_checkpoint_runs(tmp_path):
    """A tokenizer that is a program in the folder is refused without a question."""
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}})
    )
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Own: ...\n")
    with pytest.raises(UserError, match="its tokenizer cannot be read"):
        load_text_tokenizer(tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize("what", ["empty", "broken", "config"])
def test_none_to_be_read(folder, what):
    file = folder / ("tokenizer_config.json" if what == "config" else "tokenizer.json")
    file.write_text('{"a": ') if what != "empty" else file.unlink()
    if what == "empty":
        (folder / "tokenizer_config.json").unlink()
    with pytest.raises(UserError) as error:
        load_text_tokenizer(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("length", [0, -1])
def test_a_limit_below_the_special_tokens(folder, tmp_path, length):
    for source in (folder, tiny_file(tmp_path / "x.gguf")):
        with pytest.raises(UserError, match=f"max_length={length}: must be >= 1"):
            load_text_tokenizer(source, length)
