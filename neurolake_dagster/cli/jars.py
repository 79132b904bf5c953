"""`neurolake jars`: bring the jars that Spark needs for Delta, S3 and NCF."""

import time

import click

from neurolake_dagster.settings import CacheSettings
from neurolake_dagster.spark.jars import installed_set, log_jars, resolve_jars
from neurolake_dagster.spark.jvm import format_jar


@click.command()
@click.option(
    "--mirror",
    metavar="PLACE",
    help="Take them from here instead of Maven Central: the cache folder of another machine, or "
    "a folder or URL of a Maven repository.",
)
@click.option("--offline", is_flag=True, help="Ask no network; exits with 1 if jars are missing.")
def jars(mirror: str | None, offline: bool) -> None:
    """Resolve Spark's jars into the cache folder; quick where they are there already.

    NEUROLAKE_CACHE__DIR names the folder, .cache by default.
    """
    started = time.perf_counter()
    cache = CacheSettings.load().dir
    folder = installed_set().folder(cache)
    is_new = not folder.exists()
    if is_new and not offline and mirror is None:
        click.echo(f"Resolving Spark's jars into {folder} (about 20 s)")
    found = resolve_jars(cache, mirror=mirror, offline=offline)
    found = [*found, format_jar(cache), *log_jars(cache, found)]
    if is_new:
        size = sum(path.stat().st_size for path in found) / 1e6
        click.echo(f"{len(found)} jars, {size:.1f} MB, {time.perf_counter() - started:.0f} s")
