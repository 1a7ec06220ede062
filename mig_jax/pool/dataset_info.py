"""dataset_info.json, with which LLaMA-Factory reads a selection from its output folder (``dataset_dir: OUT``)."""

from collections.abc import Mapping
from typing import Any

from mig_jax.core.errors import UserError


def _role_tags(role: str, content: str, user: str, assistant: str) -> dict[str, str]:
    return {
        "role_tag": role,
        "content_tag": content,
        "user_tag": user,
        "assistant_tag": assistant,
        "system_tag": "system",
    }


_FORMATS: dict[str, dict[str, Any]] = {
    "mig": {
        "formatting": "sharegpt",
        "columns": {"messages": "dialogs"},
        "tags": _role_tags("role", "content", "user", "assistant"),
    },
    "sharegpt": {
        "formatting": "sharegpt",
        "columns": {"messages": "conversations"},
        "tags": _role_tags("from", "value", "human", "gpt"),
    },
    "openai": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": _role_tags("role", "content", "user", "assistant"),
    },
    "alpaca": {
        "formatting": "alpaca",
        "columns": {"prompt": "instruction", "query": "input", "response": "output"},
    },
}
_ALPACA_DIALOG_COLUMNS = {"system": "system", "history": "history"}


_OVERRIDES = {
    "dialog": ("columns", "messages"),
    "role": ("tags", "role_tag"),
    "content": ("tags", "content_tag"),
    "instruction": ("columns", "prompt"),
    "input": ("columns", "query"),
    "output": ("columns", "response"),
}


def describable(layout: str, keys: Mapping[str, str]) -> bool:
    """Whether dataset_info.json can describe rows of ``layout``: it does not support nested columns."""
    return layout in _FORMATS and not any("." in (keys.get(key) or "") for key in _OVERRIDES)


def dataset_info(
    files: Mapping[str, str], layout: str, converted: bool = False, keys: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """The content of dataset_info.json: one entry per file.

    Args:
      files: the name of each data set -> its file, relative to dataset_info.json.
      layout: the layout of the rows: mig, sharegpt, openai or alpaca.
      converted: the rows were written by ``convert``, whose alpaca rows have system and history columns; of alpaca
        rows as read, only the three columns that all of them have are listed.
      keys: the user's own names of dialog, role, content, instruction, input and output (``pool.fields``).

    Raises:
      UserError: an unknown layout.
    """
    if layout not in _FORMATS:
        raise UserError("no dataset_info for this layout", key="layout", value=layout, allowed=tuple(_FORMATS))
    entries = {}
    for name, file_name in files.items():
        entry = {key: dict(value) if isinstance(value, dict) else value for key, value in _FORMATS[layout].items()}
        if layout == "alpaca" and converted:
            entry["columns"] |= _ALPACA_DIALOG_COLUMNS
        for key, (part, item) in _OVERRIDES.items():
            if keys and keys.get(key) and item in entry.get(part, {}):
                entry[part][item] = keys[key]
        entries[name] = {"file_name": file_name, **entry}
    return entries
