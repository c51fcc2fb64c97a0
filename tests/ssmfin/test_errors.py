"""How messages end."""

from __future__ import annotations

import pickle

from ssmfin.errors import InputError, nearest


def test_a_suggestion_ends_its_sentence_with_the_question_mark_alone() -> None:
    first, second = (f"{name!r} is unknown; {nearest(name, ['rv', 'log_return'])}." for name in ("log_retrun", "xyz"))
    assert str(InputError(f"{first}\n{second}")) == (
        "'log_retrun' is unknown; did you mean 'log_return'?\n'xyz' is unknown; known: log_return, rv."
    )


def test_a_message_survives_the_way_to_another_process() -> None:
    error = InputError("a is 1; did you mean 'b'?.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "a is 1; did you mean 'b'?"
