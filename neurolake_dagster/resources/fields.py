"""The fields that a resource or IO manager is given, checked where Dagster does not.

Dagster leaves out what it does not know: with a misspelt root, tables would lie elsewhere.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg
import pydantic

from neurolake_dagster.errors import SettingsError
from neurolake_dagster.settings import StorageSettings
from neurolake_dagster.storage import Storage


def refuse_unknown(resource: type[pydantic.BaseModel], given: Iterable[str]) -> None:
    """Refuse names that a resource has no field for.

    Raises
    ------
    SettingsError
        Naming each and the field that is like it.
    """
    known = set(resource.model_fields)
    known |= {field.alias for field in resource.model_fields.values() if field.alias}
    problems = []
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
            problems.append(f"no field {name!r}; did you mean {near[0]}?")
    if problems:
        raise SettingsError(f"{resource.__name__}: {'; '.join(problems)}")


def require_resource(
    owner: type[pydantic.BaseModel], kind: type[dg.ConfigurableResource[Any]], **given: object
) -> None:
    """Refuse what is no resource of a kind, also none that is configured at launch.

    Dagster takes anything for what may be configured at launch.

    Raises
    ------
    SettingsError
    """
    for name, value in given.items():
        # Dagster's name for what is configured at launch is private, and making one takes a while.
        is_one = value is None or isinstance(value, kind)
        if not is_one and not isinstance(value, type(kind.configure_at_launch())):
            raise SettingsError(
                f"{owner.__name__}: {name} is a {type(value).__name__}, expected a "
                f"{kind.__name__}; give it {name}={kind.__name__}()"
            )


def require_storage(manager: type[pydantic.BaseModel], storage: object) -> None:
    """Refuse an IO manager without a storage, or with what stands for one elsewhere.

    Raises
    ------
    SettingsError
    """
    if storage is None or isinstance(storage, (str, Path, Storage, StorageSettings)):
        found = "none" if storage is None else f"a {type(storage).__name__}"
        raise SettingsError(
            f"{manager.__name__}: storage is {found}, expected a StorageResource; "
            'give it storage=StorageResource(root="data")'
        )
