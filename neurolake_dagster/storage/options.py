"""How a store is reached: the options, and the client that obstore makes of them."""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from obstore.store import LocalStore, S3Store

from neurolake_dagster.storage.credentials import (
    Keys,
    MachineState,
    machine_state,
    profile_credentials,
)
from neurolake_dagster.storage.failures import translated

if TYPE_CHECKING:
    from obstore.store import S3Config

# A dead endpoint is told within 15 s: 5 s to connect, two retries begun within 8 s.
MAX_RETRIES = 2
RETRY_TIMEOUT_S = 8
CONNECT_TIMEOUT_S = 5
STALL_TIMEOUT_S = 10
# Of one whole request: a slow upload is no dead one.
REQUEST_TIMEOUT_S = 300

ObjectStore = LocalStore | S3Store


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """How to reach an S3-compatible store; local roots need none of it.

    Parameters
    ----------
    endpoint
        ``host:port`` or ``http(s)://host:port``; None is AWS itself.
    access_key, secret_key, session_token
        None leaves the credentials to the machine, as AWS's own tools find them: variables,
        the profile in force, web identity, container or instance.
    secure
        TLS, for an endpoint without a scheme; a scheme decides by itself.
    """

    endpoint: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str = "us-east-1"
    secure: bool = False

    @property
    def endpoint_url(self) -> str:
        """The endpoint with its scheme; AWS's regional one when none is set."""
        if self.endpoint is None:
            return f"https://s3.{self.region}.amazonaws.com"
        if "://" in self.endpoint:
            return self.endpoint.rstrip("/")
        return f"{'https' if self.secure else 'http'}://{self.endpoint.rstrip('/')}"

    @property
    def allows_http(self) -> bool:
        """Whether the store is reached without TLS."""
        return self.endpoint_url.startswith("http://")

    def config(self) -> dict[str, str]:
        """What obstore and deltalake are told alike; of what is not, each asks ``AWS_*``."""
        config = {
            "aws_endpoint_url": self.endpoint_url,
            # The variable of this name is stronger than the key above.
            "aws_endpoint_url_s3": self.endpoint_url,
            "aws_region": self.region,
            "aws_virtual_hosted_style_request": "false",
            "aws_conditional_put": "etag",
        }
        return config | ({"aws_skip_signature": "false"} if self.keys() else {})

    def keys(self) -> Keys | None:
        """The credentials that are given here, if they are."""
        if not (self.access_key and self.secret_key):
            return None
        return Keys(self.access_key, self.secret_key, self.session_token)

    def deltalake_options(self) -> dict[str, str]:
        """All of it as deltalake's ``storage_options``.

        Raises
        ------
        StorageAccessError
            If the machine's profile gives no credentials.
        """
        rendered = self.config() | {
            "allow_http": str(self.allows_http).lower(),
            "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
            "max_retries": str(MAX_RETRIES),
            "retry_timeout": f"{RETRY_TIMEOUT_S}s",
        }
        profile = None if self.keys() else profile_credentials()
        keys = profile.keys() if profile else self.keys()
        if keys is not None:
            rendered["aws_access_key_id"] = keys.access_key
            rendered["aws_secret_access_key"] = keys.secret_key
            if keys.token is not None or "AWS_SESSION_TOKEN" in os.environ:
                # Unsaid, a token of the environment would be taken, which is another key's.
                rendered["aws_session_token"] = keys.token or ""
        return rendered


def open_store(root: str, options: StorageOptions) -> ObjectStore:
    """The client of one normalised root; made once a process, and a local root with it.

    One without keys of its own is made again where those of the machine may have changed.
    """
    is_told = not root.startswith("s3://") or options.keys() is not None
    return _client(root, options, None if is_told else machine_state())


@lru_cache(maxsize=64)
def _client(root: str, options: StorageOptions, state: MachineState | None) -> ObjectStore:  # noqa: ARG001
    if not root.startswith("s3://"):
        with translated(root):
            return LocalStore(prefix=root, mkdir=True)
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    # A provider, not plain options: those would be mixed with AWS_SESSION_TOKEN.
    provider = options.keys() or profile_credentials()
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=cast("S3Config", options.config()),
        credential_provider=provider,
        client_options={
            "allow_http": options.allows_http,
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "read_timeout": timedelta(seconds=STALL_TIMEOUT_S),
            "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
        },
        retry_config={
            "max_retries": MAX_RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S),
        },
    )
