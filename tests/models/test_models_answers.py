"""``mig-jax generate`` on tiny models written on the spot: what goes in, what comes out, what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_gguf import huggingface_tensors, tiny_file
from tokenizers import Tokenizer, models

from mig_jax.cli.arguments import prepare, quoted
from mig_jax.cli.main import main
from mig_jax.commands.generate.run import run_generate
from mig_jax.commands.registry import compose
from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import ModelSpec
from mig_jax.models.inference.generate import generate
from mig_jax.models.inference.language_model import as_tokens, load_language_model

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}a{% endif %}"
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A random llama of two layers whose words are a, b, c and their joins, with a chat template."""
    return tiny_file(tmp_path_factory.mktemp("model") / "tiny.gguf", more={"tokenizer.chat_template": TEMPLATE})


def run(file, *overrides: str) -> list[str]:
    own = ["model=checkpoint", f"model.path={file}", "generate.max_new_tokens=6", "cache=null"]
    return list(run_generate(compose("generate", [*own, *overrides])))


def expected(file, prompts: list[str]) -> list[str]:
    """By the library: the ids, special tokens included, of texts as they are."""
    model = load_language_model(ModelSpec(name="tiny", path=file))
    return [one.text for one in generate(model, model.tokenizer.encode(prompts), max_new_tokens=6)]


def test_a_prompt_as_it_is(file):
    assert run(file, "prompt=abc", "generate.chat=false") == expected(file, ["abc"])


def test_a_prompt_in_the_chat_template(file):
    """The template's text carries its own end marks, and no BOS is added a second time."""
    model = load_language_model(ModelSpec(name="tiny", path=file))
    [ids] = model.tokenizer.encode_plain(["uabc</s>a"])
    assert ids.count(2) == 1  # </s> is one token, not three letters
    assert run(file, "prompt=abc") == [generate(model, [ids], max_new_tokens=6)[0].text]
    [ids] = model.tokenizer.encode_plain(["sb</s>uabc</s>a"])
    assert run(file, "prompt=abc", "generate.system=b") == [generate(model, [ids], max_new_tokens=6)[0].text]


def test_prompts_of_a_file_keep_their_order(file, tmp_path):
    texts = ["abc", "c", "ab ab ab ab", "b"]
    texts.append("a\u2028b\x0bc")  # no ends of lines
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(texts).encode() + b"\n")
    assert run(file, f"prompts={tmp_path / 'p.txt'}", "generate.chat=false") == expected(file, texts)


def test_answers_go_to_a_file_with_their_prompts(file, tmp_path):
    rows = [{"prompt": "abc"}, {"messages": [{"role": "user", "content": "ab"}], "more": 1}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    out = tmp_path / "a.jsonl"
    [said] = run(file, f"prompts={tmp_path / 'p.jsonl'}", f"out={out}")
    made = [json.loads(line) for line in out.read_text().splitlines()]
    assert said == f"2 answers, {sum(row['tokens'] for row in made)} tokens: {out}"
    assert [{key: row[key] for key in rows[n]} for n, row in enumerate(made)] == rows  # and what else a row has
    model = load_language_model(ModelSpec(name="tiny", path=file))
    ids = model.tokenizer.encode_plain(["uabc</s>a", "uab</s>a"])
    for row, one in zip(made, generate(model, ids, max_new_tokens=6), strict=True):
        assert (row["answer"], row["finished"], row["tokens"]) == (one.text, one.finished, len(one.tokens))
        np.testing.assert_allclose(row["logprob"], one.logprobs.sum(), atol=1e-4)  # four decimals are written
    with pytest.raises(UserError, match=r"a\.jsonl: exists; overwrite=true"):
        run(file, "prompt=abc", f"out={out}")
    run(file, "prompt=abc", f"out={out}", "overwrite=true")
    assert len(out.read_text().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "p.jsonl"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "neither of prompt=TEXT and prompts=FILE"),
        (["prompt=a", "prompts=b.txt"], "both of prompt"),
        (["prompts=nowhere.txt"], r"prompts=nowhere\.txt: there is no such file"),
        (["prompts=.."], r"must be a \.txt or \.jsonl file"),
        (["prompt=a", "out=a.txt"], r"out=a\.txt: must end in \.jsonl"),
        (["prompt=a", "out=nowhere/a.jsonl"], "there is no folder nowhere"),
        (["prompt=a", "generate.max_new_tokens=64"], "prompt 0 has .* 64 new tokens make more than 64"),
        (["prompt=a", "model.max_length=65"], r"model\.max_length=65: .*tiny\.gguf has 64 positions"),
        (["prompt=a", "generate.top_p=0"], "top_p"),
    ],
)
def test_what_cannot_be_done_is_refused(file, overrides, message):
    with pytest.raises(UserError, match=message):
        run(file, *overrides)


def test_bad_lines_are_all_named(file, tmp_path):
    lines = [
        '{"prompt": "a\u2028b\x85c"}',
        "{",
        '{"prompt": 1}',
        "[]",
        '{"messages": []}',
        '{"messages": "a"}',
        "1",
        '{"x": 1}',
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"p\.jsonl: line 2, 3, 4, 5, 6 and 2 more: not \{\"prompt\": TEXT\}"):
        run(file, f"prompts={tmp_path / 'p.jsonl'}")
    (tmp_path / "q.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"q\.txt: not UTF-8"):
        run(file, f"prompts={tmp_path / 'q.txt'}")


def test_a_model_without_a_template_says_so(tmp_path):
    plain = tiny_file(tmp_path / "plain.gguf")
    assert run(plain, "prompt=abc") == expected(plain, ["abc"])  # auto: as it is
    with pytest.raises(UserError, match=r"plain\.gguf.*no chat template"):
        run(plain, "prompt=abc", "generate.chat=true")


def test_an_encoder_writes_nothing(tiny):
    with pytest.raises(
        UserError, match=r"config\.json: architecture 'bert' is an encoder.*must be one of llama, mistral, qwen2"
    ):
        run(tiny.folder, "prompt=abc")


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("x=3, what is x?", "prompt"),
        ("- a list", "prompt"),
        ("--help me with x", "prompt"),
        ("Summarise notes.txt", "prompt"),
        ("y" * 5000, "prompt"),
        ("a\0b", "prompt"),
        ("nowhere.jsonl", "prompts"),
        (__file__, "prompts"),  # whose ending is refused, and not sent to a model as a text
    ],
)
def test_the_first_argument_is_a_prompt_or_a_file(argument, key):
    assert prepare([argument, "seed=1"], "generate") == [f"{key}={quoted(argument)}", "seed=1"]


def test_what_looks_like_a_setting_is_one():
    assert prepare(["model.path=a b", "generate.system=x = y"], "generate") == [
        "model.path='a b'",
        "generate.system='x = y'",
    ]
    with pytest.raises(UserError, match="-x: no such flag; settings are key=value, and a prompt is prompt='-x'"):
        prepare(["-x"], "generate")


def test_the_command_prints_the_answer_alone(file, capsys):
    own = ["model=checkpoint", f"model.path={file}", "generate.max_new_tokens=6", "cache=null"]
    main(["generate", "abc = {a}, [b]: ${c} 'a'\n", *own])
    printed = capsys.readouterr()
    model = load_language_model(ModelSpec(name="tiny", path=file))
    [ids] = model.tokenizer.encode_plain(["uabc = {a}, [b]: ${c} 'a'\n</s>a"])
    assert printed.out == generate(model, [ids], max_new_tokens=6)[0].text + "\n"
    with pytest.raises(SystemExit) as end:
        main(["generate", "abc", "second", *own])
    assert end.value.code == 2
    assert "second: neither key=value nor the prompt, which is abc" in capsys.readouterr().err


def test_words_that_the_table_lacks(tmp_path):
    """A <pad> that was added at the end and never used, as fine-tunes of Llama have it; a text that has it is told."""
    folder = save(tmp_path, words=[*LETTERS, "<pad>"], tie_word_embeddings=True)
    model = load_language_model(ModelSpec(name="tiny", path=folder))
    assert (model.tokenizer.vocab_size, model.config.vocab_size) == (len(LETTERS) + 1, len(LETTERS))
    [answer] = generate(model, model.tokenizer.encode(["ab"]), max_new_tokens=3)
    assert len(answer.tokens) > 0
    ids = model.tokenizer.encode(["ab", "a<pad>"])
    with pytest.raises(UserError, match=rf"text 1 has the id {len(LETTERS)}; must be 0 to {len(LETTERS) - 1}"):
        model.check(as_tokens(ids))


def test_no_output_table(tmp_path):
    with pytest.raises(UserError, match=r"config\.json: tie_word_embeddings is not true, and .* no lm_head\.weight"):
        load_language_model(ModelSpec(name="tiny", path=save(tmp_path, words=LETTERS)))


LETTERS = ["<s>", "</s>", *"abc"]


def save(folder, words: list[str], **config):
    """A llama with a table of LETTERS and no output table, and a tokenizer of ``words``."""
    save_file(huggingface_tensors(vocabulary=len(LETTERS)), folder / "model.safetensors")
    said = {"model_type": "llama", "vocab_size": len(LETTERS), "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(said | config))
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, []))
    tokenizer.add_special_tokens([word for word in words if len(word) > 1])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    return folder
