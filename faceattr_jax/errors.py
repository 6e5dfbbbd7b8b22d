"""What a person did wrong, said in one sentence."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input from a person: a flag, a file, a row, an attribute.

    The message is one sentence that names what is wrong and what would be right. Commands print it and exit with
    code 2; library callers may catch it.
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint to append to a message about an unknown `name`: the closest of `names`, or nothing."""
    candidates = list(names)
    by_folded = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.lower(), by_folded, n=1)
    return f" (did you mean '{by_folded[close[0]]}'?)" if close else ""


def check_choice(key: str, given: str, known: Iterable[str]) -> None:
    """Raise UserError unless the value `given` of a config's `key` is one of `known`."""
    *others, last = known
    if given not in (*others, last):
        hint = nearest(str(given), (*others, last))
        raise UserError(f"{key} is '{given}'{hint}; it can be {', '.join(others)} or {last}")
