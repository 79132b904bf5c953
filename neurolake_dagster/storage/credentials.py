"""Access keys in the form obstore asks for: given ones, and those of the machine's profile.

Owns the look into AWS's profiles, which neither obstore nor deltalake reads.
"""

import importlib.util
import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from neurolake_dagster.errors import StorageAccessError

if TYPE_CHECKING:
    from obstore.store import S3Credential

# Found, and renewed, by obstore and deltalake themselves.
NATIVE = ("env", "assume-role-with-web-identity", "container-role", "iam-role")
ASKED_AGAIN_AFTER = timedelta(minutes=8)
# The files of profiles, where no variable names others.
PROFILES = {
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
}

# The variables of AWS, and when each file of profiles was written.
MachineState = tuple[tuple[tuple[str, str], ...], tuple[tuple[int, int] | None, ...]]


@dataclass(frozen=True)
class Keys:
    """An access key, its secret, and its token where it is a temporary one."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)
    expires_at: datetime | None = None

    def __call__(self) -> "S3Credential":
        """As obstore asks a provider."""
        return {
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "token": self.token,
            "expires_at": self.expires_at,
        }


class ProfileCredentials:
    """The credentials of the profile in force, as its files have them when they are asked for.

    What expires is renewed by botocore, and what others renew in the files is read again.
    """

    def __init__(self, found: Any) -> None:
        self._found = found

    def keys(self) -> Keys:
        """The keys of this moment; good for ten minutes at least.

        Raises
        ------
        StorageAccessError
            If they cannot be had, for example after a login expired.
        """
        from botocore.exceptions import BotoCoreError

        self._found = _profile(machine_state()) or self._found
        try:
            now = self._found.get_frozen_credentials()
        except BotoCoreError as exc:
            raise _refused(exc) from exc
        until = datetime.now(UTC) + ASKED_AGAIN_AFTER
        return Keys(now.access_key, now.secret_key, now.token, until)

    def __call__(self) -> "S3Credential":
        """As obstore asks a provider."""
        return self.keys()()


def machine_state() -> MachineState:
    """What the machine's credentials are read from: another state may have others."""
    # By names: the values of all variables would be decoded too, for each request.
    names = sorted(name for name in os.environ if name.startswith("AWS_"))
    variables = tuple((name, os.environ.get(name, "")) for name in names)
    files = (os.environ.get(name, default) for name, default in PROFILES.items())
    return variables, tuple(map(_written, files))


def profile_credentials() -> ProfileCredentials | None:
    """The credentials of the profile in force (``AWS_PROFILE``, else ``default``).

    None where there is no profile, or the machine has credentials of another kind that AWS's
    tools prefer. Also without botocore, as on the executors of a cluster: obstore's own ways
    are left then.

    Raises
    ------
    StorageAccessError
        If the profile cannot be read or used.
    """
    found = _profile(machine_state())
    return None if found is None else ProfileCredentials(found)


@lru_cache(maxsize=1)
def _profile(state: MachineState) -> Any | None:  # noqa: ARG001 - what the cache is kept for
    """What botocore finds; one session for each state, that renews what expires."""
    # Dear to import, and only for stores without keys.
    if importlib.util.find_spec("botocore") is None:
        return None
    import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        found = botocore.session.get_session().get_credentials()
    except BotoCoreError as exc:
        raise _refused(exc) from exc
    return None if found is None or found.method in NATIVE else found


def _written(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.stat(os.path.expanduser(path))  # noqa: PTH111, PTH116 - asked for each request
        return found.st_mtime_ns, found.st_size
    return None


def _refused(exc: Exception) -> StorageAccessError:
    return StorageAccessError(
        f"AWS profile: {str(exc).rstrip('.')}; set the keys of the storage, or correct AWS_PROFILE "
        "and the files it is read from"
    )
