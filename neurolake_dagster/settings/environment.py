"""The environment, read once into keyword arguments of a settings model.

Owns the two forms of a name (``NEUROLAKE_SPARK__EXECUTOR_MEMORY`` and, weaker,
``NEUROLAKE_SPARK_EXECUTOR_MEMORY``), the refusal of unknown names, and the wording of every
problem at once.
"""

import difflib
import json
import os
import typing
from collections.abc import Mapping
from typing import Any, Self

import pydantic

from neurolake_dagster.errors import SettingsError


class Settings(pydantic.BaseModel):
    """Base of the settings models: frozen, no unknown names, no values in errors.

    A subclass names its group by `group`: ``SPARK`` reads ``NEUROLAKE_SPARK__*``.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    group: typing.ClassVar[str]
    _environment: frozenset[str] = pydantic.PrivateAttr(default=frozenset())

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, /, **arguments: Any) -> Self:
        """Build from arguments, then the environment, then defaults, in this order of strength.

        Parameters
        ----------
        environ
            The environment; None is this process's.
        arguments
            Fields by name; None counts as not given.

        Raises
        ------
        SettingsError
            Listing every unknown name and every value that does not fit.
        """
        found, problems = read_environment(cls, os.environ if environ is None else environ)
        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            settings = cls(**(found | given))
        except pydantic.ValidationError as exc:
            raise SettingsError(
                _sentence([*problems, *(_problem(cls, error, given) for error in exc.errors())])
            ) from None
        if problems:
            raise SettingsError(_sentence(problems))
        settings._environment = frozenset(found.keys() - given.keys())
        return settings

    def origin(self, name: str) -> typing.Literal["field", "environment", "default"]:
        """Where a field's value came from."""
        if name not in self.model_fields_set:
            return "default"
        return "environment" if name in self._environment else "field"


def read_environment(
    model: type[Settings], environ: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Collect a model's values from the environment.

    Returns
    -------
    Values by field name, and a sentence for each name with a double underscore that is no
    field's. Unknown names of the single-underscore form are not ours to judge.
    """
    strong, weak = f"NEUROLAKE_{model.group}__", f"NEUROLAKE_{model.group}_"
    names = {field.upper(): field for field in model.model_fields}
    values: dict[str, Any] = {}
    problems = []
    for prefix in (weak, strong):
        for variable in sorted(environ):
            name = variable.removeprefix(prefix)
            if name == variable or environ[variable] == "":
                continue
            if name in names:
                values[names[name]] = _parse(model, names[name], environ[variable])
            elif prefix == strong:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
                problems.append(f"{variable}: no such setting; did you mean {prefix}{near[0]}?")
    return values, problems


def _parse(model: type[Settings], field: str, text: str) -> Any:
    """Parse JSON for fields that are dicts or lists; pydantic parses the rest."""
    kinds = {typing.get_origin(part) for part in _parts(model.model_fields[field].annotation)}
    if kinds & {dict, list, tuple}:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _parts(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation itself."""
    return [annotation, *typing.get_args(annotation)]


def _problem(model: type[Settings], error: Any, given: Mapping[str, Any]) -> str:
    """One of pydantic's errors as: where, what is wrong."""
    field = str(error["loc"][0]) if error["loc"] else ""
    message = error["msg"].removeprefix("Value error, ")
    if field not in model.model_fields:
        return f"{field}: {message}" if field else str(message)
    where = field if field in given else f"NEUROLAKE_{model.group}__{field.upper()}"
    is_secret = pydantic.SecretStr in _parts(model.model_fields[field].annotation)
    got = "" if is_secret or ", got " in message else f", got {error['input']!r}"
    return f"{where}: {message}{got}"


def _sentence(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} settings are wrong: " + "; ".join(problems)
