"""``NEUROLAKE_STORAGE__*``: where the tables lie and how that store is reached."""

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field, SecretStr, field_validator, model_validator

from neurolake_dagster.settings.checks import check_endpoint, default_tls, scheme_tls
from neurolake_dagster.settings.environment import Broken, Settings


class StorageSettings(Settings):
    """The store of all tables. Everything but `root` concerns ``s3://`` roots only.

    A scheme in `endpoint` decides about TLS unless `secure` is set; if both are and disagree,
    that is an error, never a silent downgrade.
    """

    group: ClassVar[str] = "STORAGE"
    credentials: ClassVar[tuple[str, str, str]] = ("access_key", "secret_key", "session_token")

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
    secret_key: SecretStr | None = Field(
        default=None, description="S3 secret key, with access_key."
    )
    session_token: SecretStr | None = Field(
        default=None, description="S3 session token of access_key, where that is a temporary one."
    )
    secure: bool | None = Field(
        default=None,
        description="Reach S3 by TLS. Unset: by the endpoint's scheme, on for AWS, else off.",
    )
    region: str = Field(default="us-east-1", description="S3 region of the tables.")
    data_bucket: str | None = Field(
        default=None, description="Bucket of the tables: root = s3://<bucket>, unless root is set."
    )
    multipart_threshold: int = Field(
        default=52_428_800,
        ge=5_242_880,
        description="Spark uploads to S3 in parts from this size, in bytes.",
    )
    max_concurrency: int = Field(
        default=10,
        ge=1,
        le=50,
        description="Threads of Spark that upload parts to S3 at once, per process.",
    )

    @model_validator(mode="before")
    @classmethod
    def _take_bucket(cls, values: dict[str, Any]) -> dict[str, Any]:
        bucket = values.get("data_bucket")
        return values if bucket is None else {"root": f"s3://{bucket}"} | values

    @field_validator("root")
    @classmethod
    def _check_root(cls, value: str) -> str:
        scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]+):/", value)
        if scheme is not None and scheme[1].lower() not in ("s3", "file"):
            raise ValueError(f"expected a folder or s3://bucket/prefix, got scheme {scheme[1]!r}")
        return value

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        return None if value is None else check_endpoint(value)

    def broken_rules(self) -> Iterator[Broken]:
        """Which rules between the fields do not hold."""
        if (self.access_key is None) != (self.secret_key is None):
            message = "expected both or neither, got one"
            yield Broken(fields=self.credentials[:2], message=message)
        elif self.session_token is not None and self.access_key is None:
            message = "expected with access_key and secret_key, got alone"
            yield Broken(fields=self.credentials[2:], message=message)
        if self.secure is not None and scheme_tls(self.endpoint) not in (None, self.secure):
            yield Broken(
                fields=("secure", "endpoint"),
                message=f"{self.secure} contradicts the scheme of {self.endpoint}; drop one",
            )

    @property
    def asked_tls(self) -> bool | None:
        """What is said about TLS: by `secure`, or else by the endpoint's scheme."""
        return scheme_tls(self.endpoint) if self.secure is None else self.secure

    @property
    def uses_tls(self) -> bool:
        """What is said about TLS; where nothing is, on for AWS, else off."""
        return default_tls(self.endpoint) if self.asked_tls is None else self.asked_tls
