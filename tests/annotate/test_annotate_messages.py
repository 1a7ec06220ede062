"""What ``mig-jax annotate`` says of keys: its help, and messages that name the keys which are accepted."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mig_jax.cli.arguments import prepare
from mig_jax.cli.help import command_help
from mig_jax.commands.annotate.annotator import AnnotationInput
from mig_jax.commands.annotate.annotators import find_annotator
from mig_jax.commands.annotate.config import AnnotateConfig
from mig_jax.commands.annotate.nearest import threshold_of
from mig_jax.commands.registry import COMMANDS, compose
from mig_jax.config.keys import groups_of
from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import ModelSpec

PLACES = ["tags.model", "deita.complexity", "deita.quality", "ifd.model", "car.model", "tokens.model"]


def checked(*overrides: str) -> AnnotateConfig:
    return compose("annotate", overrides)


def refused(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        checked(*overrides)
    return str(error.value)


def test_the_places_of_models():
    assert list(groups_of("annotate")["model"]) == PLACES
    assert all(place in command_help(COMMANDS["annotate"]) for place in PLACES)


@pytest.mark.parametrize("place", PLACES)
def test_no_weights_and_a_wrong_path_name_the_key_that_gives_them(place: str, llama: Path):
    """And that key is accepted."""
    name = place.partition(".")[0]
    tags = ["tags=instag"] if name == "tags" else []
    first = "deita.complexity"  # which is looked for before deita.quality
    there = [f"{first}.path={llama}", f"{first}.max_length=64"] if place == "deita.quality" else []

    def look(*overrides: str) -> None:
        config = checked(*tags, *there, *overrides)
        options = getattr(config, name)
        find_annotator(name, getattr(options, "name", None))(options, AnnotationInput(_no_rows()))

    with pytest.raises(UserError, match=rf"^{place}\.path=/nowhere: there is no such folder"):
        look(f"{place}.path=/nowhere")
    with pytest.raises(UserError) as error:
        look(f"{place}.wheel=null", f"{place}.hub=null")
    assert f"{place}.path=DIR" in str(error.value)


def _no_rows() -> Any:
    """A model is looked for before the rows are looked at."""
    return None


@pytest.mark.parametrize("place", PLACES)
def test_a_path_may_have_any_characters(place: str):
    tags = ["tags=instag"] if place == "tags.model" else []
    name, _, key = place.partition(".")
    config = checked(*prepare([*tags, f"{place}.path=/a b/(x)=1"], "annotate"))
    assert getattr(getattr(config, name), key).path == "/a b/(x)=1"


def test_the_place_of_a_model_is_no_part_of_it():
    one, other = ModelSpec(name="x"), ModelSpec(name="x", prefix="ifd.model")
    assert one == other and hash(one) == hash(other) and repr(one) == repr(other)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "model.path=/x",
            "model.path: no such key; each model has a prefix, as tokens.model.path=...: tags.",
        ),
        (
            "model=llama31_8b",
            "model: no such key; each model has a prefix, as model@tokens.model=...: tags",
        ),
        ("tags.model.path=/x", "tags.model.path: not a key of the tags chosen; tags=instag has it"),
        ("model@tags.model=qwen25_7b", "model@tags.model: not a key of the tags chosen; tags=instag has it"),
        ("ifd.max_len=3", "ifd.max_len: no such key; did you mean ifd.max_length?"),
        ("ifd.model.max_len=3", "ifd.model.max_len: no such key; did you mean ifd.model.max_length?"),
        ("idf.max_length=3", "idf.max_length: no such key; did you mean ifd.max_length?"),
        ("tag.max_tags=3", "tag.max_tags: no such key; did you mean tags.max_tags?"),
        ("tags.threshold=2", "tags.threshold=2: must be auto or a number >= -1 and <= 1"),
        ("tags.threshold=aut", "tags.threshold=aut: must be auto or a number >= -1 and <= 1; did you mean auto?"),
        (
            "annotators=[nearest]",
            "'nearest' is no annotator, but a way to find tags: annotators=[tags] with tags=near",
        ),
        (
            "annotators=[ifd,instag]",
            "'instag' is no annotator, but a way to find tags: annotators=[tags] with tags=inst",
        ),
    ],
)
def test_a_wrong_key_is_told_the_right_one(override: str, told: str):
    assert told in refused(override)


def test_the_threshold_of_the_embedder():
    def found(*overrides: str) -> float:
        config = checked(*overrides)
        return threshold_of(config.tags, config.embedder)

    assert found() == found("tags.threshold=auto") == 0.31
    assert found("tags.centre=false") == 0.35
    assert found("tags.threshold=0.2", "tags.centre=false") == found("tags.threshold=0.2", "embedder=mpnet") == 0.2
    assert found("embedder=mpnet", "embedder.tag_threshold=0.4") == 0.4
    told = "tags.threshold=auto: not known for embedder mpnet; give tags.threshold=..., 0.31 is MiniLM's"
    for more in ([], ["tags.centre=false"]):
        with pytest.raises(UserError) as error:
            found("embedder=mpnet", *more)
        assert str(error.value).startswith(told if not more else told.partition("0.31")[0] + "0.35 is MiniLM's")


def test_a_threshold_of_tags_is_no_matter_of_an_embedder():
    from mig_jax.models.configured import spec_of

    embedder = checked().embedder
    assert spec_of(embedder) == spec_of(msgspec.structs.replace(embedder, tag_threshold=None))


def test_help_shows_the_keys_of_every_choice():
    said = command_help(COMMANDS["annotate"])
    for name, kind in (("instag", "InsTag"), ("nearest", "Tags without"), ("cherry", "Cherry"), ("car", "CaR")):
        assert re.search(rf"(?m)^  {name} .*{kind}.*\.$", said), name  # a whole sentence
    part = said[said.index("\n  instag ") : said.index("\n  nearest ")]
    assert "\n      prompt: " in part and "\n      max_new_tokens: 512" in part
    assert "defaults" not in part and "/model" not in part
    assert re.search(r"(?m)^  deita_complexity_mistral A Mistral", said)
    titles = re.findall(r"(?m)^  [a-z0-9_]+ +[A-Z#].*$", said[said.index("\ntags (") :])
    assert len(titles) > 10 and max(map(len, titles)) <= 120
