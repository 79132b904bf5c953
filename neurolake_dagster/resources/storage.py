"""Where the tables lie, as a Dagster resource."""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from neurolake_dagster.resources.fields import refuse_unknown
from neurolake_dagster.resources.secrets import hide, reveal
from neurolake_dagster.settings import StorageSettings
from neurolake_dagster.storage import Storage, StorageOptions

if TYPE_CHECKING:
    from dagster_aws.s3 import S3Resource

SECRETS = ("access_key", "secret_key", "session_token")


class StorageResource(dg.ConfigurableResource["StorageResource"]):
    """The store of all tables: a folder, or a bucket of an S3-compatible store.

    A field that is not set comes from ``NEUROLAKE_STORAGE__*``, then from the default.
    """

    root: str | None = Field(
        default=None, description="A folder, or s3://bucket/prefix. Default: data"
    )
    endpoint: str | None = Field(
        default=None, description="host:port or http(s)://host:port; unset: AWS."
    )
    access_key: str | None = Field(
        default=None,
        description="S3 access key.",
        repr=False,
        json_schema_extra={"dagster__is_secret": True},
    )
    secret_key: str | None = Field(
        default=None,
        description="S3 secret key.",
        repr=False,
        json_schema_extra={"dagster__is_secret": True},
    )
    session_token: str | None = Field(
        default=None,
        description="S3 session token.",
        repr=False,
        json_schema_extra={"dagster__is_secret": True},
    )
    region: str | None = Field(default=None, description="S3 region. Default: us-east-1")
    secure: bool | None = Field(default=None, description="TLS. Default: by the endpoint's scheme")

    def __init__(self, **data: Any) -> None:
        refuse_unknown(type(self), data)
        super().__init__(
            **{name: hide(value) if name in SECRETS else value for name, value in data.items()}
        )

    def settings(self) -> StorageSettings:
        """The fields, completed from the environment and checked.

        Raises
        ------
        SettingsError
        """
        return StorageSettings.load(
            **{name: reveal(name, getattr(self, name)) for name in StorageResource.model_fields}
        )

    def storage(self) -> Storage:
        """The store, ready to read and write; picklable.

        Raises
        ------
        SettingsError
        """
        settings = self.settings()
        keys = {
            name: secret.get_secret_value()
            for name in SECRETS
            if (secret := getattr(settings, name)) is not None
        }
        options = StorageOptions(
            endpoint=settings.endpoint, region=settings.region, secure=settings.uses_tls, **keys
        )
        return Storage(settings.root, options)

    def s3_resource(self) -> "S3Resource":
        """The same store and credentials for what dagster-aws has: a resource with a client."""
        from neurolake_dagster.resources.s3 import StorageS3Resource

        return StorageS3Resource(storage=self)
