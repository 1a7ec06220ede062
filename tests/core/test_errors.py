"""UserError: data in, one message out, also after a copy or a pickle."""

import copy
import pickle

import pytest

from mig_jax.core.errors import UserError
from mig_jax.core.locks import Busy
from mig_jax.core.text import visible


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("a sentence"), "a sentence"),
        (UserError("no such key", key="phi.c"), "phi.c: no such key"),
        (UserError(key="n", value=0, allowed="a whole number >= 1"), "n=0: must be a whole number >= 1"),
        (UserError(key="n", value=None, allowed="a whole number"), "n=null: must be a whole number"),
        (UserError(key="x", value=True, allowed=(False, None)), "x=true: must be one of false, null"),
        (UserError(key="x", value=1, allowed=[2]), "x=1: must be 2"),
        (
            UserError(key="phi", value="lgo", allowed=["power", "log"]),
            "phi=lgo: must be one of power, log; did you mean log?",
        ),
        (UserError("is a folder", where="a.json"), "a.json: is a folder"),
        (
            UserError("not a tag", key="row", value=3, allowed=["a", "b"], where="a.json"),
            "a.json: row=3: not a tag; must be one of a, b",
        ),
    ],
)
def test_the_message_is_made_of_the_fields(error, text):
    assert str(error) == text
    assert repr(error) == f"UserError({text!r})"


def test_text_of_users_cannot_act_on_a_terminal():
    """A value could else clear the screen or forge a second line; our own messages may have several lines."""
    error = UserError("two\nlines\x1b", key="a\nb", value="\x1b[2J\n", where="\u202e.json")
    assert str(error) == "⟨U+202E⟩.json: a␊b=␛[2J␊: two\nlines␛"


@pytest.mark.parametrize("kind", [UserError, Busy])
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copy_has_the_fields(kind, again):
    """Errors come back from worker processes; a value that was not set stays apart from null."""
    for error in (kind("text"), kind("text", key="n", value=None, allowed=["a"], where="file")):
        other = again(error)
        assert type(other) is kind
        assert vars(other) == vars(error)
        assert str(other) == str(error)


def test_visible():
    assert visible("naïve 日本 👍🏽 e\u0301 \u200d") == "naïve 日本 👍🏽 e\u0301 \u200d"
    assert visible("a\nb\tc\x7f\x85\ud800") == "a␊b␉c␡��"
