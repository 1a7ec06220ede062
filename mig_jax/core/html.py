"""HTML by Jinja: every value is escaped, and control characters of a value are shown instead of obeyed."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from mig_jax.core.text import visible

if TYPE_CHECKING:
    from jinja2 import Environment, Template

_FACTS = """\
<table>
<caption>{{ title }}</caption>
{% for name, value in facts.items() %}
<tr><th scope="row" style="text-align:left">{{ name | replace("_", " ") }}</th>
<td style="text-align:left">{{ value }}</td></tr>
{% endfor %}
</table>
"""


def environment(**options: Any) -> "Environment":
    """A Jinja environment with autoescape; an unknown name in a template is an error.

    Args:
      options: more of ``jinja2.Environment``'s, as its ``loader``.
    """
    from jinja2 import Environment, StrictUndefined  # a run without a page does without it

    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown, **options
    )


def _shown(value: Any) -> Any:
    """What a template writes for a value; text of a pool keeps its line breaks and tabs."""
    if isinstance(value, str) and not hasattr(value, "__html__"):  # else HTML of a template itself
        return visible(value, "\n\t")
    return value


@cache
def _fact_table() -> "Template":
    return environment().from_string(_FACTS)


class Described:
    """A public object that is shown as one line, in a notebook as a small table. Dataclasses need ``repr=False``."""

    def _facts(self) -> Mapping[str, str]:
        """A few facts for people, by name."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return visible(
            f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self._facts().items())})"
        )

    def _repr_html_(self) -> str:
        return _fact_table().render(title=type(self).__name__, facts=self._facts())
