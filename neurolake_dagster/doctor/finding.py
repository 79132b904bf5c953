"""What a check found."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failure", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's page.

    Parameters
    ----------
    check
        What was looked at.
    status
        ``warning``: works, but not as well as it could. ``skipped``: cannot be told, because
        of another finding or because these settings do not need it.
    fix
        What to do; empty where nothing is to be done.
    """

    check: str
    status: Status
    found: str
    expected: str
    fix: str = ""


def judge(check: str, fits: bool, found: str, expected: str, fix: str) -> Finding:
    """A failure with its fix, unless the thing fits."""
    if fits:
        return Finding(check=check, status="ok", found=found, expected=expected)
    return Finding(check=check, status="failure", found=found, expected=expected, fix=fix)


def advise(check: str, fits: bool, found: str, expected: str, fix: str) -> Finding:
    """A warning with its fix, unless the thing fits."""
    if fits:
        return Finding(check=check, status="ok", found=found, expected=expected)
    return Finding(check=check, status="warning", found=found, expected=expected, fix=fix)


def skip(check: str, reason: str, expected: str) -> Finding:
    """A check that was not made."""
    return Finding(check=check, status="skipped", found=reason, expected=expected)
