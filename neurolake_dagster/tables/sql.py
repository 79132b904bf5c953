"""Names and texts in SQL, as deltalake's engine and Spark take them.

Owns the quotes, and the one difference: in a text Spark takes a backslash for an escape.
"""

import re
from collections.abc import Sequence

_CHAINED = 16
_QUOTED = re.compile(r"`[^`]*`|'[^']*'")


def quoted_column(name: str) -> str:
    """A column's name as SQL; dots in it are no path."""
    return "`" + name.replace("`", "``") + "`"


def quoted_text(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def any_of(tests: Sequence[str]) -> str:
    """The tests, joined by OR in halves: of a chain of thousands, engines overflow their stack."""
    if len(tests) <= _CHAINED:
        return " OR ".join(tests)
    half = len(tests) // 2
    return f"({any_of(tests[:half])}) OR ({any_of(tests[half:])})"


def spark_sql(test: str) -> str:
    """A test of `Predicate.sql` or `Scope.predicate` as Spark takes it: same texts, same names."""
    return _QUOTED.sub(_escaped, test)


def _escaped(quoted: re.Match[str]) -> str:
    found = quoted.group()
    return found if found.startswith("`") else found.replace("\\", "\\\\")
