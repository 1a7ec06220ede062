"""Chat templates: rendered as transformers does, found in every place, data never run, refusals in one message."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from tiny_gguf import tiny_file

from mig_jax.core.errors import UserError
from mig_jax.models.tokenizers.chat import chat_prompt, load_chat

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": 'Hi <b>"you"</b> {{ 7 * 6 }} {% raw %} é'},
    {"role": "assistant", "content": "Hello.\n"},
    {"role": "user", "content": ""},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

CHATML = """{% for message in messages %}
{% if loop.first and messages[0]['role'] != 'system' %}
{{- '<|im_start|>system\nYou help.<|im_end|>\n' -}}
{% endif %}
{{-'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'-}}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
LLAMA = """{{- bos_token }}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set ns = namespace(last=none) %}
{%- for message in messages %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- set ns.last = message['role'] %}
    {{- '[' + message['role'] | upper + '] ' + message['content'] | trim }}
    {%- if message.role == 'assistant' %}{% generation %}{{ eos_token }}{% endgeneration %}{% endif %}
{%- endfor %}
{{- ns.last }}{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ tools }}{{ nothing }}"""


@pytest.mark.parametrize("template", [CHATML, LLAMA])
@pytest.mark.parametrize("add", [True, False])
def test_renders_as_transformers(template, add):
    from transformers.utils.chat_template_utils import render_jinja_template

    options = {"conversations": [TALK], "chat_template": template, "add_generation_prompt": add}
    [[theirs], _] = render_jinja_template(**options, **TOKENS)
    assert chat_prompt(TALK, template, TOKENS, add) == theirs


def test_by_hand():
    assert chat_prompt(TALK[1:2], CHATML, {}) == (
        "<|im_start|>system\nYou help.<|im_end|>\n"
        '<|im_start|>user\nHi <b>"you"</b> {{ 7 * 6 }} {% raw %} é<|im_end|>\n<|im_start|>assistant\n'
    )
    assert chat_prompt([], CHATML, {}, False) == ""


def test_now_is_a_day_that_stays():
    template = "{{ strftime_now('%d %b %Y') }}"
    assert chat_prompt([], template, {}) == "26 Jul 2024"
    assert chat_prompt([], template, {}, today=datetime(2025, 1, 2)) == "02 Jan 2025"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for x in messages %}\n{{ x", "the chat template failed, line 2: TemplateSyntaxError"),
        (
            "{{ raise_exception('roles must alternate') }}",
            "the chat template failed: TemplateError: roles must alternate",
        ),
        ("{{ messages[0].__class__.__mro__ }}", "the chat template may not do this: SecurityError"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", "may not do this"),
        ("{{ raise_exception.__globals__['json'] }}", "may not do this"),
        ("{{ strftime_now.__self__.__class__ }}", "may not do this"),
        ("{% set _ = messages.append(1) %}", "may not do this"),
        ("{{ '{0.__class__}'.format(messages) }}", "may not do this"),
        ("{% include '/etc/hostname' %}", "the chat template failed"),
        ("{% for n in range(10 ** 9) %}{% endfor %}", "the chat template failed: OverflowError"),
        ("{{ messages[9]['content'] }}", "the chat template failed: UndefinedError"),
        ("{{ messages + 1 }}", "the chat template failed: TypeError"),
    ],
)
def test_templates_that_fail(template, says):
    with pytest.raises(UserError) as error:
        chat_prompt(TALK, template, TOKENS, where="here")
    assert str(error.value).startswith("here: ") and says in str(error.value)


@pytest.mark.parametrize(
    "messages",
    ["hi", {"role": "user", "content": "hi"}, ["hi"], [{"role": "user"}], [{"role": 1, "content": "a"}],
     [{"role": "user", "content": [{"text": "a"}]}]],
)  # fmt: skip
def test_messages_that_are_none(messages):
    with pytest.raises(UserError, match="messages must be a list of"):
        chat_prompt(messages, CHATML, {})


def folder(tmp_path: Path, **files) -> Path:
    for name, content in files.items():
        name, _, kind = name.rpartition("_")
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / f"{name}.{kind}").write_text(text, encoding="utf-8")
    return tmp_path


def test_where_a_template_is_found(tmp_path):
    """The first place that has one: the .jinja file, chat_template.json, tokenizer_config.json."""
    here = folder(tmp_path, tokenizer_config_json={"chat_template": "one", "eos_token": {"content": "</s>"}})
    assert load_chat(here)[:2] == ("one", {"eos_token": "</s>"})
    several = [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]
    assert load_chat(folder(tmp_path, tokenizer_config_json={"chat_template": several})).template == "three"
    assert load_chat(folder(tmp_path, chat_template_json={"chat_template": "four"})).template == "four"
    assert load_chat(folder(tmp_path, chat_template_jinja="{{ 'fünf' }}")).template == "{{ 'fünf' }}"


def test_special_tokens_of_old_files(tmp_path):
    old = {"bos_token": "<s>", "eos_token": "old", "additional_special_tokens": ["x"]}
    here = folder(tmp_path, special_tokens_map_json=old, tokenizer_config_json={"eos_token": "new", "pad_token": None})
    assert load_chat(here).special_tokens == {"bos_token": "<s>", "eos_token": "new"}


def test_of_a_gguf_file(tmp_path):
    file = tiny_file(tmp_path / "x.gguf", more={"tokenizer.chat_template": "{{ bos_token }}"})
    found = load_chat(file)
    assert chat_prompt([], found.template, found.special_tokens) == "<s>"
    bare = tiny_file(tmp_path / "y.gguf")
    assert load_chat(bare).template is None
    folder(tmp_path, chat_template_jinja="beside")
    assert load_chat(bare).template == "beside" and load_chat(file).template == "{{ bos_token }}"


@pytest.mark.parametrize("kind", ["gguf", "folder", "empty"])
def test_no_template(tmp_path, kind):
    """The message says where it was looked for, and what to do."""
    if kind == "gguf":
        source = tiny_file(tmp_path / "x.gguf")
    else:
        source = folder(tmp_path, **({"tokenizer_config_json": {}} if kind == "folder" else {}))
    found = load_chat(source)
    with pytest.raises(UserError) as error:
        chat_prompt(TALK, found.template, found.special_tokens, where=found.where)
    looked = {"gguf": "x.gguf: no", "folder": "(tokenizer_config.json): no", "empty": "(none of chat_template.jinja, "}
    assert looked[kind] in str(error.value) and "chat_template.jinja beside it" in str(error.value)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (5, "chat_template: must be a string or a list of named templates, not int"),
        ([{"name": "rag", "template": "x"}], "no template is named default; there is rag"),
        ([{"name": "default", "template": 3}], "not int"),
    ],
)
def test_no_template_there_but_something_else(tmp_path, said, says):
    with pytest.raises(UserError) as error:
        load_chat(folder(tmp_path, tokenizer_config_json={"chat_template": said}))
    assert says in str(error.value) and "tokenizer_config.json" in str(error.value)


def test_a_template_file_that_is_no_text(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"chat_template\.jinja: cannot be read"):
        load_chat(tmp_path)
