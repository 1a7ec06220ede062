"""What a sentence-transformers folder says of its embeddings, and what follows where it says nothing."""

import json
from pathlib import Path

import pytest

from mig_jax.cli.sample import overrides, parser
from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.sentence_folder import sentence_settings


def write(folder: Path, **files: object) -> Path:
    for name, content in files.items():
        file = folder / {"pooling": "1_Pooling/config.json", "sentence": "sentence_bert_config.json"}.get(
            name, f"{name}.json"
        )
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return folder


def test_a_sentence_transformers_encoder(tmp_path):
    modes = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True, "pooling_mode_lasttoken": False}
    write(tmp_path, config={"model_type": "mpnet"}, pooling=modes | {"word_embedding_dimension": 8})
    assert sentence_settings(tmp_path) == {"group": "bert", "pooling": "cls"}
    write(tmp_path, sentence={"max_seq_length": 384, "do_lower_case": False})
    assert sentence_settings(tmp_path) == {"group": "bert", "pooling": "cls", "max_length": 384}


def test_e5_mistral_s_folder(tmp_path):
    write(
        tmp_path,
        config={"model_type": "mistral", "torch_dtype": "float16"},
        pooling={"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False, "include_prompt": True},
        sentence={"max_seq_length": 4096},
        tokenizer_config={"add_eos_token": True},
    )
    expected = {"group": "decoder", "pooling": "last", "max_length": 4096, "append_eos": "true", "dtype": "bfloat16"}
    assert sentence_settings(tmp_path) == expected


def test_plain_folders(tmp_path):
    assert sentence_settings(write(tmp_path, config={"model_type": "bert", "torch_dtype": "float16"})) == {
        "group": "bert"
    }
    assert sentence_settings(write(tmp_path, config={"model_type": "qwen2"})) == {"group": "decoder"}
    assert sentence_settings(write(tmp_path, config={"model_type": ["odd"]})) == {"group": "bert"}
    assert sentence_settings(tmp_path / "gone") == {"group": "bert"}
    assert sentence_settings(tmp_path / "gone.gguf") == {"group": "decoder"}


@pytest.mark.parametrize("modes", [{"pooling_mode_max_tokens": True}, {"word_embedding_dimension": 3},
                                   {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}])  # fmt: skip
def test_a_pooling_that_there_is_not(tmp_path, modes):
    write(tmp_path, config={"model_type": "bert"}, pooling=modes)
    with pytest.raises(UserError, match=r"1_Pooling/config\.json: sets .*; must set one of pooling_mode_mean_tokens"):
        sentence_settings(tmp_path)


def modules(*kinds: str) -> list[dict]:
    kind_at = {n: f"sentence_transformers.models.{kind}" for n, kind in enumerate(kinds)}
    return [{"idx": n, "name": str(n), "path": f"{n}_{kinds[n]}" if n else "", "type": of} for n, of in kind_at.items()]


def test_modules(tmp_path):
    """Pooling stands where modules.json says; without Normalize a label graph's cosines still want unit vectors."""
    write(tmp_path, config={"model_type": "bert"}, modules=modules("Transformer", "Pooling"))
    assert sentence_settings(tmp_path) == {"group": "bert"}
    write(tmp_path, pooling={"pooling_mode_cls_token": True})
    assert sentence_settings(tmp_path) == {"group": "bert", "pooling": "cls"}
    write(tmp_path, modules=modules("Transformer", "Normalize", "Pooling"))
    (tmp_path / "1_Pooling").rename(tmp_path / "2_Pooling")
    assert sentence_settings(tmp_path) == {"group": "bert", "pooling": "cls"}
    given = overrides(parser().parse_args(["p.jsonl", "--out", "o", "--embedding-model", str(tmp_path)]))
    assert not [one for one in given if one.startswith("embedder.normalize")]


def test_a_module_that_there_is_not(tmp_path):
    write(tmp_path, config={"model_type": "bert"}, modules=modules("Transformer", "Pooling", "Dense", "LayerNorm"))
    with pytest.raises(UserError, match="Dense and LayerNorm") as error:
        sentence_settings(tmp_path)
    assert error.value.where == tmp_path / "modules.json"


@pytest.mark.parametrize("said", [{"a": 1}, [1], [{"type": "Pooling"}], 3])
def test_modules_that_are_none(tmp_path, said):
    with pytest.raises(UserError, match=r"modules\.json: must be a JSON list of objects with type and path"):
        sentence_settings(write(tmp_path, config={"model_type": "bert"}, modules=said))


def test_the_published_command_takes_any_family(tmp_path):
    write(tmp_path, config={"model_type": "llama"}, sentence={"max_seq_length": 99})
    given = overrides(parser().parse_args(["p.jsonl", "--out", "o", "--embedding-model", str(tmp_path)]))
    assert {"embedder=decoder", "embedder.name=embedding-model", "embedder.max_length=99"} <= set(given)
