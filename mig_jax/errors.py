"""The one exception that the command line turns into a message and exit code 2."""


class UserError(ValueError):
    """A mistake in the input: says what is wrong, where (file, line or key) and what is allowed."""
