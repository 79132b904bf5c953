"""How a store is reached: the options, and the client that obstore makes of them."""

from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from obstore.store import LocalStore, S3Store

from neurolake_dagster.storage.failures import translated

if TYPE_CHECKING:
    from obstore.store import S3Credential

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
        None leaves the credentials to the machine (instance or container role).
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


@lru_cache(maxsize=64)
def open_store(root: str, options: StorageOptions) -> ObjectStore:
    """The client of one normalised root; made once a process, and a local root with it."""
    if not root.startswith("s3://"):
        with translated(root):
            return LocalStore(prefix=root, mkdir=True)
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    provider = None
    if options.access_key and options.secret_key:
        # A provider, not plain options: those would be mixed with AWS_SESSION_TOKEN.
        provider = _StaticCredentials(options)
    return S3Store(
        bucket,
        prefix=prefix or None,
        endpoint=options.endpoint_url,
        region=options.region,
        virtual_hosted_style_request=False,
        credential_provider=provider,
        client_options={
            "allow_http": options.endpoint_url.startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "read_timeout": timedelta(seconds=STALL_TIMEOUT_S),
            "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
        },
        retry_config={
            "max_retries": MAX_RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S),
        },
    )


@dataclass(frozen=True)
class _StaticCredentials:
    """The options' keys in the form obstore asks a provider for."""

    options: StorageOptions

    def __call__(self) -> "S3Credential":
        return {
            "access_key_id": self.options.access_key or "",
            "secret_access_key": self.options.secret_key or "",
            "token": self.options.session_token,
            "expires_at": None,
        }
