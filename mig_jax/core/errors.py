"""The one exception that the command line turns into a message and exit code 2, and how it does."""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from mig_jax.core.text import as_typed, did_you_mean, visible


class UserError(ValueError):
    """A mistake in the input, as data; ``str(error)`` is ``where: key=value: message; must be allowed``.

    Args:
      message: what is wrong; "" where ``allowed`` says it all.
      key: the setting that is wrong.
      value: its value; ``...`` where the setting has none, or where it does not matter.
      allowed: what the value must be: the possible values, or a description ("a whole number >= 1").
      where: the file, the line of a file or the folder that the error is about.
    """

    def __init__(
        self,
        message: str = "",
        *,
        key: str | None = None,
        value: Any = ...,
        allowed: str | Sequence[Any] | None = None,
        where: object = None,
    ):
        super().__init__(message)  # args = (message,): copies and pickles are made from it and the fields
        self.message, self.key, self.value, self.allowed, self.where = message, key, value, allowed, where

    def __str__(self) -> str:
        setting = self.key
        if setting is not None and self.value is not ...:
            setting = f"{setting}={as_typed(self.value)}"
        problem = visible("; ".join(filter(None, (self.message, self._allowed()))), "\n")
        return ": ".join([*(visible(part) for part in (self.where, setting) if part is not None), problem])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def _allowed(self) -> str:
        """``must be one of power, exp, log; did you mean log?``."""
        if self.allowed is None:
            return ""
        if isinstance(self.allowed, str):
            return f"must be {self.allowed}"
        values = [as_typed(value) for value in self.allowed]
        hint = did_you_mean(self.value, values) if isinstance(self.value, str) else ""
        return f"must be {'one of ' if len(values) > 1 else ''}{', '.join(values)}{hint}"


def split_validation(text: str) -> tuple[str, str]:
    """The text of an error of msgspec as (message, path of the key); "" is the path of the whole.

    msgspec has no data in its errors, only a text such as "Expected `int`, got `str` - at `$.engine.shortlist`". This
    is the one function that reads the path in it.
    """
    message, _, path = text.partition(" - at `$")
    return message, path.rstrip("`").removeprefix(".")


def fail(message: str, code: int = 2) -> NoReturn:
    """Write one message to stderr and exit. For the entries only; SystemExit passes through Hydra and its callbacks."""
    print(f"mig-jax: error: {message}", file=sys.stderr)
    sys.exit(code)
