"""``NEUROLAKE_STORAGE__*``: where the tables lie and how that store is reached."""

import urllib.parse
from typing import Any, ClassVar, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from neurolake_dagster.settings.environment import Settings


class StorageSettings(Settings):
    """The store of all tables. Everything but `root` concerns ``s3://`` roots only.

    A scheme in `endpoint` decides about TLS unless `secure` is set; if both are and disagree,
    that is an error, never a silent downgrade.
    """

    group: ClassVar[str] = "STORAGE"

    root: str = Field(
        default="data",
        description="Where the tables lie: a folder (relative to the working directory) or "
        "s3://bucket/prefix.",
    )
    endpoint: str | None = Field(
        default=None,
        description="host:port or http(s)://host:port of an S3-compatible store; unset: AWS.",
    )
    access_key: SecretStr | None = Field(
        default=None, description="S3 access key; unset: the machine's own credentials."
    )
    secret_key: SecretStr | None = Field(default=None, description="S3 secret key.")
    session_token: SecretStr | None = Field(default=None, description="S3 session token.")
    secure: bool | None = Field(
        default=None, description="TLS; unset: by the endpoint's scheme, on for AWS, else off."
    )
    region: str = Field(default="us-east-1", description="S3 region.")
    data_bucket: str | None = Field(
        default=None, description="Bucket of the tables: root = s3://<bucket>, unless root is set."
    )
    multipart_threshold: int = Field(
        default=52_428_800,
        ge=5_242_880,
        description="Spark uploads in parts from this size, in bytes.",
    )
    max_concurrency: int = Field(
        default=10, ge=1, le=50, description="Parallel parts of an upload by Spark."
    )

    @model_validator(mode="before")
    @classmethod
    def _take_bucket(cls, values: dict[str, Any]) -> dict[str, Any]:
        bucket = values.get("data_bucket")
        return values if bucket is None else {"root": f"s3://{bucket}"} | values

    @field_validator("root")
    @classmethod
    def _check_root(cls, value: str) -> str:
        scheme = urllib.parse.urlsplit(value).scheme
        if "://" in value and scheme not in ("s3", "file"):
            raise ValueError(f"expected a folder or s3://bucket/prefix, got scheme {scheme!r}")
        return value

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:
            scheme = urllib.parse.urlsplit(value).scheme
            if scheme not in ("http", "https"):
                raise ValueError(f"expected http:// or https://, got {scheme}://")
        return value

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key: expected both or neither, got one")
        scheme = self.endpoint.split("://")[0] if self.endpoint and "://" in self.endpoint else ""
        if self.secure is not None and scheme and self.secure != (scheme == "https"):
            raise ValueError(
                f"secure: {self.secure} contradicts the endpoint's scheme {scheme}://; drop one"
            )
        return self

    @property
    def is_s3(self) -> bool:
        """Whether the tables lie in an object store."""
        return self.root.startswith("s3://")

    @property
    def uses_tls(self) -> bool:
        """`secure`, or else the endpoint's scheme; AWS itself always by TLS."""
        if self.secure is not None:
            return self.secure
        return self.endpoint is None or self.endpoint.startswith("https://")
