"""What is secret among settings, and how it is shown where people read.

Owns the pattern of secret keys, which Spark gets too, and the shown form of a Connect address.
"""

import re

# Of Spark and Hadoop keys: also ``fs.azure.account.key.*``, ``fs.azure.sas.*``, API keys.
REDACTED = (
    r"(?i)secret|passw|passphrase|token|credential|signature|jaas|access[._-]?key|api[._-]?key"
    r"|private[._-]?key|[._-]key([._-]|$)|[._-]sas([._-]|$)"
)
HIDDEN = "***"
# ``name:password@`` in an address.
LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]*@")


def is_secret(key: str, value: object = "") -> bool:
    """Whether the value of a Spark or Hadoop key must not be shown."""
    return bool(re.search(REDACTED, key) or LOGIN.search(str(value)))


def shown_configs(configs: dict[str, str]) -> dict[str, str]:
    """Keys and values, those of secret keys hidden."""
    return {key: HIDDEN if is_secret(key, value) else value for key, value in configs.items()}


def shown_remote(remote: str) -> str:
    """A Connect address without its parameters, one of which is the token.

    ``sc://host:443/;token=t`` is shown as ``sc://host:443/***``.
    """
    scheme, separator, rest = remote.partition("://")
    if not separator:
        return re.split(r"[/;@]", remote)[0]
    place, slash, parameters = rest.partition("/")
    host = re.split(r"[;?#]", place.rpartition("@")[2])[0]
    is_bare = host == place and not parameters.strip(";")
    return f"{scheme}://{host}" if is_bare else f"{scheme}://{host}{slash or '/'}{HIDDEN}"
