"""Where an asset lies below the storage's root.

Owns the escaping of asset keys: nothing leaves the root, no two keys share a place, and no
tool (Hadoop globs, URL decoding, hidden folders) reads a meaning into a name.
"""

import re
from collections.abc import Sequence

import dagster as dg

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]|^_")


def dataset_path(asset_key: dg.AssetKey | Sequence[str]) -> str:
    """The folder of an asset, for example ``ncf/flights`` for the key ``["ncf", "flights"]``.

    All but letters, digits, ``_`` and ``-`` becomes ``~`` and its UTF-8 bytes in hexadecimal:
    unlike ``%`` nobody decodes it. A leading ``_``, which would hide the folder, too.
    """
    if isinstance(asset_key, dg.AssetKey):
        return dataset_path(asset_key.path)
    segments = [asset_key] if isinstance(asset_key, str) else asset_key
    return "/".join(_escape(segment) for segment in segments)


def _escape(segment: str) -> str:
    if not segment:
        return "~"
    return _UNSAFE.sub(lambda found: _hex(found.group()), segment)


def _hex(character: str) -> str:
    return "".join(f"~{byte:02X}" for byte in character.encode())
