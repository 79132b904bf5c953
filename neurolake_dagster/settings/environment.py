"""The environment, read once into keyword arguments of a settings model.

Owns the two forms of a name (``NEUROLAKE_SPARK__EXECUTOR_MEMORY`` and, weaker,
``NEUROLAKE_SPARK_EXECUTOR_MEMORY``), the refusal of unknown names, and the wording of every
problem at once.
"""

import difflib
import json
import os
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import pydantic
from pydantic_core import PydanticCustomError

from neurolake_dagster.errors import SettingsError

# The type of the error that tells of broken rules among pydantic's.
RULES = "rules"


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A rule between fields that does not hold; `message` is read after the fields' names."""

    fields: tuple[str, ...]
    message: str


class Settings(pydantic.BaseModel):
    """Base of the settings models: frozen, no unknown names, no values in errors.

    A subclass names its group by `group`: ``SPARK`` reads ``NEUROLAKE_SPARK__*``; and by
    `credentials` the fields of an access key, its secret and its token, which belong together.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    group: typing.ClassVar[str]
    credentials: typing.ClassVar[tuple[str, str, str] | None] = None
    _variables: dict[str, str] = pydantic.PrivateAttr(default_factory=dict)

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
            Listing every unknown name, every value that does not fit, and all that contradict
            each other, each under the name that it was given by.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        found = read_environment(cls, os.environ if environ is None else environ)
        if cls.credentials is not None and given.keys() >= set(cls.credentials[:2]):
            # A token of the environment is not this key's.
            found.values.pop(cls.credentials[2], None)
        variables = {
            name: variable for name, variable in found.variables.items() if name not in given
        }
        settings, broken = _build(cls, found.values | given)
        problems = [*found.problems, *(_told(cls, one, given, variables) for one in broken)]
        if settings is None or problems:
            raise SettingsError(_sentence(problems))
        settings._variables = variables  # noqa: SLF001  # of this class
        return settings

    def origin(self, name: str) -> typing.Literal["field", "environment", "profile", "default"]:
        """Where a field's value came from."""
        if name not in self.model_fields_set:
            return "default"
        return "environment" if name in self._variables else "field"

    def broken_rules(self) -> Iterable[Broken]:
        """Which rules between the fields do not hold."""
        return ()

    @pydantic.model_validator(mode="after")
    def _check_rules(self) -> Self:
        broken = tuple(self.broken_rules())
        if broken:
            text = "; ".join(f"{', '.join(one.fields)}: {one.message}" for one in broken)
            raise PydanticCustomError(RULES, "{text}", {"text": text, "broken": broken})
        return self

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, value if name is None else self.shown(name, value)

    def shown(self, name: str, value: Any) -> Any:  # noqa: ARG002  # a subclass asks
        """A field's value as people may see it."""
        return value


Model = typing.TypeVar("Model", bound=Settings)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an environment holds for a model: values and their variables by field, and faults."""

    values: dict[str, Any]
    variables: dict[str, str]
    problems: list[str]


def read_environment(model: type[Settings], environ: Mapping[str, str]) -> Found:
    """Collect a model's values from the environment.

    A name with a double underscore that is no field's is a problem. Unknown names of the
    single-underscore form are not ours to judge.
    """
    strong, weak = f"NEUROLAKE_{model.group}__", f"NEUROLAKE_{model.group}_"
    names = {field.upper(): field for field in model.model_fields}
    variables: dict[str, str] = {}
    problems = []
    for prefix in (weak, strong):
        for variable in sorted(environ):
            name = variable.removeprefix(prefix)
            if name == variable or environ[variable] == "":
                continue
            if name in names:
                variables[names[name]] = variable
            elif prefix == strong:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
                problems.append(f"{variable}: no such setting; did you mean {prefix}{near[0]}?")
    values = {}
    for name, variable in variables.items():
        try:
            values[name] = _parse(model, name, environ[variable])
        except ValueError as exc:
            problems.append(f"{variable}: {exc}")
    return Found(values=values, variables=variables, problems=problems)


def _parse(model: type[Settings], field: str, text: str) -> Any:
    """Parse JSON for fields that are dicts or lists; pydantic parses the rest."""
    kind = _container(model, field)
    if kind is None:
        return text
    word = "object" if kind is dict else "list"
    try:
        value = json.loads(text)
    except json.JSONDecodeError as exc:
        # Not the text: it may hold secrets.
        raise ValueError(
            f"expected a JSON {word}, got what JSON cannot read: {exc.msg} at character {exc.pos}"
        ) from None
    if not isinstance(value, kind):
        raise ValueError(f"expected a JSON {word}, got another kind ({type(value).__name__})")
    return value


def _container(model: type[Settings], field: str) -> type | None:
    """Dict or list, if that is what a field holds."""
    kinds = {typing.get_origin(part) for part in parts_of(model.model_fields[field].annotation)}
    return next((kind for kind in (dict, list) if kind in kinds), None)


def parts_of(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation itself."""
    return [annotation, *typing.get_args(annotation)]


def _build(model: type[Model], values: dict[str, Any]) -> tuple[Model | None, list[Any]]:
    """The settings, or what is wrong: values first, then rules between the others."""
    try:
        return model(**values), []
    except pydantic.ValidationError as exc:
        found = exc.errors()
    wrong = {str(error["loc"][0]) for error in found if error["loc"]}
    if wrong:
        try:
            model(**{name: value for name, value in values.items() if name not in wrong})
        except pydantic.ValidationError as exc:
            found += exc.errors()
    broken: list[Any] = []
    for error in found:
        if error["type"] != RULES:
            broken.append(error)
            continue
        rules: tuple[Broken, ...] = error["ctx"]["broken"]
        # With a wrong value left out, its default would break a rule that nobody broke.
        broken += [rule for rule in rules if not wrong & set(rule.fields)]
    return None, broken


def _told(
    model: type[Settings], problem: Any, given: Mapping[str, Any], variables: Mapping[str, str]
) -> str:
    """A broken rule, or one of pydantic's errors, as: where, what is wrong."""

    def name_of(field: str, is_variable: bool = True) -> str:
        variable = f"NEUROLAKE_{model.group}__{field.upper()}" if is_variable else field
        return field if field in given else variables.get(field, variable)

    if isinstance(problem, Broken):
        is_variable = bool(variables.keys() & set(problem.fields))
        names = ", ".join(name_of(field, is_variable) for field in problem.fields)
        return f"{names}: {problem.message}"
    field = str(problem["loc"][0]) if problem["loc"] else ""
    message = problem["msg"].removeprefix("Value error, ")
    if field not in model.model_fields:
        near = difflib.get_close_matches(field, model.model_fields, n=1, cutoff=0.0)
        return f"{field}: no such setting; did you mean {near[0]}?"
    inner = ".".join(str(part) for part in problem["loc"][1:])
    message = f"{inner}: {message}" if inner else message
    parts = parts_of(model.model_fields[field].annotation)
    is_shown = pydantic.SecretStr not in parts and _container(model, field) is None
    is_told = not is_shown or ", got " in message or problem["type"] == "value_error"
    return f"{name_of(field)}: {message}" + ("" if is_told else f", got {problem['input']!r}")


def _sentence(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} settings are wrong: " + "; ".join(problems)
