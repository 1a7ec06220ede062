"""The pages' templates: one environment, with the functions that write numbers."""

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from mig_jax.core.html import environment
from mig_jax.report import text

if TYPE_CHECKING:
    from jinja2 import Environment

_FUNCTIONS = ("count", "number", "share", "seconds", "bytesize", "floor_percent", "row_count")


def render(template: str, **values: Any) -> str:
    """The page that ``templates/{template}`` makes of ``values``."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> "Environment":
    from jinja2 import PackageLoader

    made = environment(loader=PackageLoader("mig_jax.report"))
    made.globals |= {name: getattr(text, name) for name in _FUNCTIONS}
    made.filters["plain"] = _plain
    return made


def _plain(value: Any) -> str:
    """A fact of a manifest: text as it is, a float with four digits, all else as JSON."""
    if isinstance(value, float):
        return text.number(value, 4)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
