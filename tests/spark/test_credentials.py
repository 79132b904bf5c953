"""That S3A starts with each kind of credentials, though only a part of the AWS SDK is there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from neurolake_dagster.spark.conf import MACHINE_CREDENTIALS

pytestmark = pytest.mark.spark

SDK = "software.amazon.awssdk.auth.credentials"
S3A = "org.apache.hadoop.fs.s3a"
PROVIDERS = {
    "machine": MACHINE_CREDENTIALS,
    "static": f"{S3A}.SimpleAWSCredentialsProvider",
    "session token": f"{S3A}.TemporaryAWSCredentialsProvider",
    "environment": f"{SDK}.EnvironmentVariableCredentialsProvider",
    "profile file": f"{SDK}.ProfileCredentialsProvider",
    "profile of Hadoop": f"{S3A}.auth.ProfileAWSCredentialsProvider",
    "web identity": f"{SDK}.WebIdentityTokenFileCredentialsProvider",
    "container": f"{SDK}.ContainerCredentialsProvider",
    "instance": f"{SDK}.InstanceProfileCredentialsProvider",
    "instance of Hadoop": f"{S3A}.auth.IAMInstanceCredentialsProvider",
    "anonymous": f"{S3A}.AnonymousAWSCredentialsProvider",
}


@pytest.fixture
def web_identity(spark: SparkSession, tmp_path: Path) -> Iterator[None]:
    """What a pod of EKS gives by its environment; here by the JVM's properties."""
    token = tmp_path / "token"
    token.write_text("t")
    system = spark.sparkContext._jvm.java.lang.System
    properties = {"aws.webIdentityTokenFile": str(token), "aws.roleArn": "arn:aws:iam::1:role/r"}
    for name, value in properties.items():
        system.setProperty(name, value)
    yield
    for name in properties:
        system.clearProperty(name)


@pytest.mark.parametrize("provider", list(PROVIDERS.values()), ids=list(PROVIDERS))
def test_s3a_starts_with_it(
    spark: SparkSession, provider: str, web_identity: None, tmp_path: Path
) -> None:
    profiles = tmp_path / "credentials"
    profiles.write_text("[default]\naws_access_key_id = id\naws_secret_access_key = key\n")
    jvm = spark.sparkContext._jvm
    conf = jvm.org.apache.hadoop.conf.Configuration(spark.sparkContext._jsc.hadoopConfiguration())
    conf.set("fs.s3a.aws.credentials.provider", provider)
    conf.set("fs.s3a.auth.profile.file", str(profiles))
    system = jvm.org.apache.hadoop.fs.FileSystem.newInstance(jvm.java.net.URI("s3a://b"), conf)
    assert system.getUri().toString() == "s3a://b"
    system.close()
