"""The REST API of a Spark UI on this machine: what an application tells of itself."""

import http.client
import json
import urllib.parse
from types import TracebackType
from typing import Any, Self

from neurolake_dagster.errors import SparkError

# The first answer of a UI takes seconds: it loads what it answers with.
TIMEOUT_S = 30.0


class StatusAPI:
    """Asks one UI, over one connection; leaving the block closes it.

    Parameters
    ----------
    ui_url
        ``http://host:port``.
    """

    def __init__(self, ui_url: str) -> None:
        self._ui_url = ui_url
        # Not urllib: it would send this to a proxy where the environment names one.
        place = urllib.parse.urlsplit(ui_url).netloc
        self._connection = http.client.HTTPConnection(place, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def get(self, *path: str) -> Any:
        """The answer below ``applications``.

        Raises
        ------
        SparkError
            If there is none, or it is no JSON; so also if Spark does not know the thing any more.
        """
        url = "/".join(["/api/v1/applications", *path])
        try:
            self._connection.request("GET", url)
            return json.loads(self._connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise SparkError(f"Spark's UI {self._ui_url}: no answer to {url}: {exc!r}") from exc
