"""Chat templates: render a list of messages as the prompt that a model was tuned on.

A template is a program in a checkpoint: it runs in Jinja's sandbox, with only the functions that transformers provides
(transformers/utils/chat_template_utils.py). The content of messages is never executed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import read_json
from mig_jax.models.checkpoints.gguf_header import read_metadata
from mig_jax.models.tokenizers.gguf_tokenizer import gguf_special_tokens

TODAY = datetime(2024, 7, 26)
"""The date of ``strftime_now`` in templates, fixed so that prompts are reproducible: the default date of Llama 3's
template."""

GENERATION_START, GENERATION_END = "\ue010generation\ue011", "\ue010endgeneration\ue011"
"""Marks around the body of a ``{% generation %}`` block, if ``chat_prompt`` is called with ``mark_generation``."""

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Chat(NamedTuple):
    """The chat template of a checkpoint.

    Args:
      template: its Jinja source; None if there is none.
      special_tokens: name (such as ``bos_token``) -> token; variables of the template.
      where: the file, or the files that were searched, for messages.
    """

    template: str | None
    special_tokens: dict[str, str]
    where: str


def chat_prompt(
    messages: Sequence[Mapping[str, str]],
    template: str | None,
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
    *,
    today: datetime = TODAY,
    mark_generation: bool = False,
    where: str = "the tokenizer",
) -> str:
    """Render messages as one text that contains the special tokens: tokenise it without adding special tokens.

    Args:
      messages: each with ``role`` and ``content``, both strings.
      template, special_tokens, where: as returned by ``load_chat``.
      add_generation_prompt: end with the beginning of the assistant's turn.
      today: the date of ``strftime_now``.
      mark_generation: put ``GENERATION_START`` and ``GENERATION_END`` around the bodies of ``{% generation %}`` blocks.

    Raises:
      UserError: there is no template, it does not compile, it rejects these messages, it uses what the sandbox does
        not allow; or a message is not as above.
    """
    if template is None:
        raise UserError(
            "no chat template, so messages cannot be rendered; use a checkpoint that was tuned for chats, or put the "
            "template into a file chat_template.jinja beside it",
            where=where,
        )
    if isinstance(messages, Mapping | str) or not all(map(_is_message, messages)):
        raise UserError('messages must be a list of {"role": a string, "content": a string}')
    # Plain copies: a template must not call methods of other objects.
    plain = [{"role": str(message["role"]), "content": str(message["content"])} for message in messages]
    variables = {"messages": plain, "add_generation_prompt": add_generation_prompt, "tools": None, "documents": None}
    try:
        return _compiled(template, mark_generation).render(**special_tokens, **variables, strftime_now=today.strftime)
    except Exception as error:  # a template can raise any exception of Python's operators
        line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        kind = "may not do this" if isinstance(error, jinja2.exceptions.SecurityError) else "failed"
        raise UserError(f"the chat template {kind}{line}: {type(error).__name__}: {error}", where=where) from error


def load_chat(source: Path) -> Chat:
    """Find the template.

    In a folder: in chat_template.jinja, chat_template.json or tokenizer_config.json, in this order. For a GGUF file: in
    its metadata, or in chat_template.jinja beside it. If there are several named templates: the one named "default".

    Args:
      source: a checkpoint's folder, or a .gguf file.

    Raises:
      UserError: a file cannot be read, or its template is of the wrong type.
    """
    if source.suffix == ".gguf":
        return gguf_chat(source, read_metadata(source))
    files = {name: source / name for name in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")}
    there = {name: file for name, file in files.items() if file.is_file()}
    config = read_json(files["tokenizer_config.json"]) if "tokenizer_config.json" in there else {}
    template = None
    if "chat_template.jinja" in there:
        template = _source(there["chat_template.jinja"])
    for name in ("chat_template.json", "tokenizer_config.json"):
        if template is None and name in there:
            template = _template(read_json(there[name]).get("chat_template"), f"{there[name]}, chat_template")
    where = f"{source} ({', '.join(there)})" if there else f"{source} (none of {', '.join(files)})"
    return Chat(template, _special_tokens(source, config), where)


def gguf_chat(file: Path, metadata: Mapping[str, Any]) -> Chat:
    """``load_chat`` of a .gguf file whose (long) metadata has been read already."""
    template = _template(metadata.get("tokenizer.chat_template"), f"{file}, tokenizer.chat_template")
    beside = file.with_name("chat_template.jinja")
    if template is None and beside.is_file():
        return Chat(_source(beside), gguf_special_tokens(metadata), str(beside))
    return Chat(template, gguf_special_tokens(metadata), str(file))


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _source(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as a template ({error})", where=file) from error


def _template(value: Any, where: str) -> str | None:
    """The template of a string, or of a list of ``{"name": .., "template": ..}``."""
    if isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):
        templates = {entry.get("name"): entry.get("template") for entry in value}
        if value and "default" not in templates:
            raise UserError(f"no template is named default; there is {', '.join(map(str, templates))}", where=where)
        value = templates.get("default")
    if value is not None and not isinstance(value, str):
        raise UserError(f"must be a string or a list of named templates, not {type(value).__name__}", where=where)
    return value


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens of tokenizer_config.json; those missing there, of special_tokens_map.json (older checkpoints)."""
    older = folder / "special_tokens_map.json"
    entries = (read_json(older) if older.is_file() else {}) | {k: v for k, v in config.items() if v is not None}
    texts = {name: entries[name].get("content") if isinstance(entries[name], dict) else entries[name]
             for name in _SPECIAL if name in entries}  # fmt: skip
    return {name: text for name, text in texts.items() if isinstance(text, str)}


class _Generation(jinja2.ext.Extension):
    """``{% generation %} .. {% endgeneration %}`` marks text of the assistant, for training; it renders its body."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's interface)

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        if self.environment.globals.get("mark_generation"):
            start, end = (
                jinja2.nodes.Output([jinja2.nodes.TemplateData(mark)]) for mark in (GENERATION_START, GENERATION_END)
            )
            body = [start, *body, end]
        return jinja2.nodes.Scope(body, lineno=line)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **rest: Any) -> str:
    """``tojson`` as in transformers: Jinja's own escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **rest)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Raises an error for forbidden attributes; Jinja's own sandbox renders them as an empty text."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise jinja2.exceptions.SecurityError(f"{attribute!r} of a {type(obj).__name__}")


@lru_cache(maxsize=16)
def _compiled(template: str, mark_generation: bool) -> jinja2.Template:
    sandbox = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
    sandbox.globals["mark_generation"] = mark_generation
    tojson: Callable[..., str] = _json
    sandbox.filters["tojson"] = tojson
    sandbox.globals["raise_exception"] = _refuse
    return sandbox.from_string(template)
