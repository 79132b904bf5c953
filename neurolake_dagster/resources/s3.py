"""dagster-aws' S3Resource on the credentials of the tables.

Owns the client. Imports boto3 and dagster-aws: only for those who ask for it.
"""

from typing import Any

import boto3
import botocore.config
import dagster as dg
from dagster_aws.s3 import S3Resource

from neurolake_dagster.resources.storage import StorageResource


class StorageS3Resource(S3Resource):
    """An `S3Resource` for assets and IO managers of dagster-aws, on one credential.

    Its own fields stay unset: keys, endpoint and region are those of `storage`, read when a client
    is made.
    """

    storage: dg.ResourceDependency[StorageResource]

    def get_client(self) -> Any:
        """A boto3 client for the storage's server, with paths as the tables have them."""
        options = self.storage.storage().options
        style = "auto" if options.endpoint is None else "path"
        return boto3.client(
            "s3",
            endpoint_url=None if options.endpoint is None else options.endpoint_url,
            region_name=options.region,
            aws_access_key_id=options.access_key,
            aws_secret_access_key=options.secret_key,
            aws_session_token=options.session_token,
            config=botocore.config.Config(
                s3={"addressing_style": style},
                retries={"max_attempts": self.max_attempts, "mode": "standard"},
            ),
        )
