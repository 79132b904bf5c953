"""Every failure of obstore as one of our storage errors, told in one line."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from obstore.exceptions import BaseError

from neurolake_dagster.errors import (
    NeuroLakeError,
    StorageAccessError,
    StorageError,
    StorageExistsError,
    StorageNotFoundError,
    StorageUnavailableError,
)

# In S3's answer, or as obstore tells of one object among several.
_S3_CODE = re.compile(r"<Code>(\w+)</Code>|\(code: (\w+)\)")
# Refusals that S3 does not answer with 403.
_NO_ACCESS = ("AccessDenied", "ExpiredToken", "InvalidToken", "TokenRefreshRequired")
# Also by 301, without a code where nothing but the object's facts was asked for.
_OTHER_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint")
_FORBIDDEN = ("PermissionDeniedError", "UnauthenticatedError")
_FIXES = {
    "ExpiredToken": "the session token has expired, get new credentials",
    "RequestTimeTooSkewed": "set this machine's clock, which differs from the store's",
}
# Where obstore and deltalake ask for the credentials of an instance.
_INSTANCE = "169.254.169.254"
# What the innermost error is called by one of them, and what that means.
_CAUSES = {
    "dns error": "no host has that name",
    "onnection ?refused": "the connection is refused, nothing listens there",
    "InvalidContentType": "it speaks no TLS there; use http://, or secure=false",
    "invalid peer certificate|InvalidCertificate": (
        "its certificate is not trusted here; set SSL_CERT_FILE to the file of its authority's"
    ),
    "TimedOut|timed out": "nothing came in time",
}


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Translate what obstore raises inside the block; `uri` says where it happened.

    Raises
    ------
    StorageError
        In a fork of a process that used obstore: its threads are not there, and a call of it
        would wait for ever.
    """
    if _first_process() != os.getpid():
        raise StorageError(
            f"{uri}: this process is a fork of one that used a store before, and has none of its "
            "threads; start it anew, as by multiprocessing.get_context('spawn')"
        )
    try:
        yield
    except NeuroLakeError:
        raise
    except (BaseError, OSError, ValueError) as exc:
        raise _translate(exc, uri) from exc


@cache
def _first_process() -> int:
    """The process in which obstore was used first, or the one that it is a fork of."""
    return os.getpid()


def _translate(exc: Exception, uri: str) -> StorageError:
    """Name the failure; only the first line of obstore's text, for the rest repeats it."""
    text = _plain(str(exc))
    found = _S3_CODE.search(text)
    code = (found[1] or found[2]) if found else ""
    kind = type(exc).__name__
    if kind in ("AlreadyExistsError", "PreconditionError"):
        return StorageExistsError(f"{uri}: exists already, expected nothing there")
    if code in ("NoSuchBucket", "InvalidBucketName"):
        return StorageUnavailableError(f"{uri}: no such bucket ({code}); create it or fix the root")
    if isinstance(exc, FileNotFoundError):
        return StorageNotFoundError(f"{uri}: nothing there")
    if _INSTANCE in text:
        return StorageAccessError(
            f"{uri}: no credentials; set the access key and the secret key, or give this machine a "
            "profile or a role of AWS"
        )
    if code in _OTHER_REGION or "redirect without LOCATION" in text:
        return StorageUnavailableError(
            f"{uri}: the bucket is in another region ({code or 'redirected'}); set the storage's "
            "region to the bucket's"
        )
    if kind in _FORBIDDEN or code in _NO_ACCESS or _says_forbidden(text):
        reason = code or text.splitlines()[0]
        fix = _FIXES.get(code, "check the access key, the secret key and the rights")
        return StorageAccessError(f"{uri}: access refused ({reason}); {fix}")
    if "HTTP error" in text or "timed out" in text or "Server returned non-2xx" in text:
        reason = re.sub(r" in [\d.]+\w+(, after.*?)? +- ", ": ", text.splitlines()[0])
        causes = (f": {told}" for mark, told in _CAUSES.items() if re.search(mark, text))
        return StorageUnavailableError(
            f"{uri}: the store does not answer{next(causes, '')} ({reason})"
        )
    return StorageError(f"{uri}: {text.splitlines()[0] if text else kind}")


def _plain(text: str) -> str:
    """The text without deltalake's colours and arrows, which stand where a colon was."""
    lines = [re.sub(r"\x1b\[[0-9;]*m|↳", "", line).strip() for line in text.splitlines()]
    if len(lines) > 1 and re.search(r"Generic \w+ error$", lines[0]):
        return ": ".join(lines)
    return "\n".join(lines)


def _says_forbidden(text: str) -> bool:
    return any(mark in text for mark in ("403 Forbidden", "401 Unauthorized", "(os error 13)"))
