"""The one exception that the command line turns into a message and exit code 2, and how it does."""

import sys
from typing import NoReturn


class UserError(ValueError):
    """A mistake in the input: says what is wrong, where (file, line or key) and what is allowed."""


def fail(message: str, code: int = 2) -> NoReturn:
    """One message on stderr, and the end. For the entries only; SystemExit passes through Hydra and its callbacks."""
    print(f"mig-jax: error: {message}", file=sys.stderr)
    sys.exit(code)
