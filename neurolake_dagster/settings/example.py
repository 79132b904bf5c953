"""``.env.example``: every name that is read from the environment, rendered from the settings.

Run as ``python -m neurolake_dagster.settings.example > .env.example``; a test compares the two.
"""

import json
import sys
import textwrap
import typing
from typing import Any

import pydantic
from pydantic.fields import FieldInfo

from neurolake_dagster.settings.checks import SIZES
from neurolake_dagster.settings.environment import Settings, parts_of
from neurolake_dagster.settings.paths import CacheSettings, SourceSettings
from neurolake_dagster.settings.spark import SparkSettings
from neurolake_dagster.settings.storage import StorageSettings

WIDTH = 96
HEAD = """\
Every name that NeuroLake reads from the environment, with its default and meaning.
Copy to .env (Dagster and neurolake load it from the working directory), uncomment what you
change. Of what is exported too, neurolake takes the exported value and Dagster the file's.
A name with a single underscore after the group (NEUROLAKE_SPARK_MASTER) works too and is
weaker. An unknown name with two is an error. An empty value counts as not set.
On a local Spark master, driver memory (a quarter of the machine's, 1 to 4 GiB), shuffle
partitions (one per core, at least 2), dynamic allocation and speculation (both off) follow the
machine unless they are set."""


def render_example() -> str:
    """The text of ``.env.example``."""
    models: list[type[Settings]] = [StorageSettings, SparkSettings, SourceSettings, CacheSettings]
    blocks = ["\n".join(f"# {line}" for line in HEAD.splitlines())]
    for model in models:
        blocks += [_render(model, name, field) for name, field in model.model_fields.items()]
    return "\n\n".join(blocks) + "\n"


def _render(model: type[Settings], name: str, field: FieldInfo) -> str:
    text = f"{field.description} ({_unit(name, field)})"
    lines = textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")
    return "\n".join([*lines, f"#NEUROLAKE_{model.group}__{name.upper()}={_value(field.default)}"])


def _unit(name: str, field: FieldInfo) -> str:
    """What kind of value is taken, with its bounds."""
    if name in SIZES:
        return "size such as 512m or 4g"
    parts = parts_of(field.annotation)
    words = [word for part in parts for word in _words(part)]
    if words:
        return f"one of {', '.join(words)}"
    kinds = {typing.get_origin(part) or part for part in parts}
    if pydantic.SecretStr in kinds:
        return "secret"
    if bool in kinds:
        return "true or false"
    if list in kinds:
        return "JSON list"
    if dict in kinds:
        return "JSON object"
    number = "whole number" if int in kinds else "number" if float in kinds else "text"
    limits = [
        f"{word} {limit}"
        for bound in field.metadata
        for word, limit in (
            ("at least", getattr(bound, "ge", None)),
            ("above", getattr(bound, "gt", None)),
            ("at most", getattr(bound, "le", None)),
            ("below", getattr(bound, "lt", None)),
        )
        if limit is not None
    ]
    return ", ".join([number, *limits])


def _words(part: Any) -> list[str]:
    """The members of a closed set."""
    if typing.get_origin(part) is not typing.Literal:
        return []
    return [str(word) for word in typing.get_args(part)]


def _value(default: object) -> str:
    if default is None:
        return ""
    return json.dumps(default) if isinstance(default, (bool, dict, list)) else str(default)


if __name__ == "__main__":
    sys.stdout.write(render_example())
