"""Templates with places for texts, and prompts that are cut to fit: the texts, never the template."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_jax.commands.annotate.prompts import Template, prompt_tokens
from mig_jax.core.errors import UserError
from mig_jax.models.tokenizers.text_tokenizer import TextTokenizer, load_text_tokenizer

KEY = "tags.prompt"


@pytest.fixture(scope="module")
def tokenizer(llama) -> TextTokenizer:
    """<s> and a token a byte."""
    return load_text_tokenizer(llama)


def ids(tokenizer: TextTokenizer, template: str, names: tuple[str, ...], texts: list[dict], limit: int):
    return prompt_tokens(tokenizer, Template.parse(template, names, KEY), texts, limit)


def text_of(tokenizer: TextTokenizer, tokens, n: int = 0) -> str:
    return tokenizer.decode(tokens.id[tokens.ptr[n] : tokens.ptr[n + 1]].tolist())


def test_a_template_is_filled_and_what_fills_it_is_text():
    template = Template.parse('{{"a": 1}} {x} and {y}!', ("x", "y"), KEY)
    assert template.fill({"x": "{y} {{z}} {0} %s", "y": "2"}) == '{"a": 1} {y} {{z}} {0} %s and 2!'


@pytest.mark.parametrize("wrong", ["no place", "{x} {x}", "{y}", "{x} {y}", "{x} {", "}{x}", "{} {x}", "{x} {0}"])
def test_a_template_that_is_none(wrong):
    with pytest.raises(UserError, match=r"^tags\.prompt: "):
        Template.parse(wrong, ("x",), KEY)


def test_prompts_that_fit_stay_as_they_are(tokenizer):
    tokens = ids(tokenizer, "Q: {x} A:", ("x",), [{"x": "abc"}, {"x": ""}, {"x": "é"}], 10)
    assert [text_of(tokenizer, tokens, n) for n in range(3)] == ["Q: abc A:", "Q:  A:", "Q: é A:"]
    assert tokens.id[tokens.ptr[:-1]].tolist() == [1, 1, 1] and tokens.cut == 0


def test_a_long_text_is_cut_and_the_template_stays(tokenizer):
    tokens = ids(tokenizer, "Q: {x} A:", ("x",), [{"x": "abc" * 40_000}, {"x": "ab"}], 20)
    assert tokens.length.tolist() == [20, 9] and tokens.cut == 1
    assert text_of(tokenizer, tokens) == "Q: abcabcabcabca A:"


def test_the_room_is_shared_and_what_is_left_of_it_passed_on(tokenizer):
    texts = [{"x": "a" * 100, "y": "b" * 100}, {"x": "a" * 100, "y": "bb"}, {"x": "a" * 3, "y": "b" * 100}]
    tokens = ids(tokenizer, "{x}/{y}.", ("x", "y"), texts, 23)
    cut = [text_of(tokenizer, tokens, n) for n in range(3)]
    assert cut == ["a" * 10 + "/" + "b" * 10 + ".", "a" * 18 + "/bb.", "aaa/" + "b" * 17 + "."]


def test_a_letter_of_several_tokens_is_not_made_longer_by_the_cut(tokenizer):
    """Half a letter is written out as three bytes: the prompt must still fit."""
    for limit in range(12, 30):
        tokens = ids(tokenizer, "Q: {x} A:", ("x",), [{"x": "音" * 50}], limit)
        assert tokens.length[0] <= limit and text_of(tokenizer, tokens).endswith(" A:")


def test_a_template_that_is_too_long_alone(tokenizer):
    with pytest.raises(UserError, match="template alone has 7 tokens; max_length leaves 6"):
        ids(tokenizer, "Q: {x} A:", ("x",), [{"x": "abc"}], 6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=5), st.integers(12, 80))
def test_any_text_gives_a_prompt(llama, texts, limit):
    tokenizer = load_text_tokenizer(llama)
    tokens = ids(tokenizer, "Q: {x} A:", ("x",), [{"x": text} for text in texts], limit)
    assert len(tokens.length) == len(texts) and (tokens.length <= limit).all()
