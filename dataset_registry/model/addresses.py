"""Addresses of catalogs, stores and servers as text without credentials.

Every shown address is passed through `redacted`, and every error text of a driver through `hide`. Only the parameters
listed here are shown; all others are treated as secrets.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus

HIDDEN = "***"

_HARMLESS = frozenset(
    (
        # ours
        *("schema", "cache", "cache_bytes"),
        # where a store is
        *("endpoint", "endpoint_url", "region", "default_region", "bucket", "bucket_name", "container_name"),
        *("allow_http", "virtual_hosted_style_request", "skip_signature", "checksum_algorithm"),
        # where a database is, and how it is reached
        *("host", "hostaddr", "port", "dbname", "user", "service", "application_name", "connect_timeout"),
        *("sslmode", "sslrootcert", "sslcert", "channel_binding", "gssencmode", "target_session_attrs"),
        *("keepalives", "keepalives_idle", "client_encoding", "load_balance_hosts"),
        # SQLite
        *("uri", "mode", "timeout", "check_same_thread", "cached_statements", "immutable", "nolock"),
    )
)
"""Parameters of a query that are shown. `aws_region` is `region`."""

_PREFIXES = ("aws_", "azure_", "google_")

_SHOWN_USERS = frozenset(("postgresql", "postgres", "abfs", "abfss"))
"""Schemes whose user is shown: a role of a database, a container. With others it may be the id of a key, or a token."""

_FILES = frozenset(("sqlite", "file"))
"""Schemes whose address is a path: an `@` in it ends no user."""

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)


_WITH_PORT = re.compile(r"[^:@]*:\d*|\[[^]@]*\](:\d*)?")


@dataclass(frozen=True, slots=True)
class _Address:
    """The parts of an address. The password may contain any character, as in SQLAlchemy."""

    scheme: str
    user: str | None
    password: str | None
    place: str
    query: tuple[tuple[str, str | None], ...]
    fragment: bool


def redacted(address: str) -> str:
    """An address without passwords, keys and tokens. A path is returned unchanged."""
    found = _parsed(address)
    if found is None:
        return address
    text = f"{found.scheme}://"
    if found.user is not None:
        is_shown = found.scheme.lower().partition("+")[0] in _SHOWN_USERS
        text += found.user if is_shown else HIDDEN
        text += f":{HIDDEN}@" if found.password is not None and is_shown else "@"
    text += found.place
    if found.query:
        text += "?" + "&".join(_shown(name, value) for name, value in found.query)
    return text + (f"#{HIDDEN}" if found.fragment else "")


def has_secrets(address: str) -> bool:
    """Whether an address has parts that `redacted` hides."""
    return redacted(address) != address


def has_user(address: str) -> bool:
    """Whether an address contains a user or a password; the container of an `abfss://` address is not a user."""
    found = _parsed(address)
    if found is None or found.user is None:
        return False
    return found.password is not None or found.scheme.lower() not in ("abfs", "abfss")


def hide(text: str, *addresses: str) -> str:
    """A text, such as a driver's error, without the secrets of these addresses."""
    for secret in sorted({secret for address in addresses for secret in _secrets(address)}, key=len, reverse=True):
        if len(secret) > _SHORT:
            text = text.replace(secret, HIDDEN)
        else:  # inside of words it is not the secret, and hiding it there would tell what it is
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return text


_SHORT = 3
"""Secrets of up to this many characters are only replaced as whole words."""


def is_harmless(name: str) -> bool:
    """Whether a parameter of a query is shown with its value."""
    plain = name.strip().lower()
    for prefix in _PREFIXES:
        plain = plain.removeprefix(prefix)
    return plain in _HARMLESS


def _parsed(address: str) -> _Address | None:
    found = _URL.fullmatch(address.strip())
    if found is None:
        return None
    scheme, rest = found["scheme"], found["rest"]
    userinfo, rest = _split_user(scheme.lower().partition("+")[0], rest)
    user, colon, password = userinfo.partition(":") if userinfo is not None else (None, "", "")
    rest, hash_sign, _ = rest.partition("#")
    place, _, query = rest.partition("?")
    pairs = [part.partition("=") for part in re.split("[&;]", query) if part]
    return _Address(
        scheme,
        user,
        password if colon else None,
        place,
        tuple((name, value if equals else None) for name, equals, value in pairs),
        bool(hash_sign),
    )


def _split_user(kind: str, rest: str) -> tuple[str | None, str]:
    """Split an address into the user part before the `@`, if any, and the rest.

    A password may contain an unescaped slash, question mark or `@`. So if a colon shows that there is a password, it
    ends at the last `@`, unless the colon is followed by the port of a server.
    """
    if "@" not in rest or (kind in _FILES and rest.startswith("/")):
        return None, rest
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    has_port = kind in ("http", "https") and _WITH_PORT.fullmatch(authority) is not None
    if ":" in authority.partition("@")[0] and not has_port:
        before_query = re.split("[?#]", rest, maxsplit=1)[0]
        end = (before_query if "@" in before_query else rest).rindex("@")
    elif "@" in authority:
        end = authority.rindex("@")
    else:
        return None, rest  # it stands in a path or in a query
    return rest[:end], rest[end + 1 :]


def _shown(name: str, value: str | None) -> str:
    if value is None:
        return name if is_harmless(unquote_plus(name)) else HIDDEN
    if not is_harmless(unquote_plus(name)):
        return f"{name}={HIDDEN}"
    plain = unquote_plus(value)
    return f"{name}={redacted(plain)}" if has_secrets(plain) else f"{name}={value}"


def _secrets(address: str) -> Iterator[str]:
    """The hidden parts of an address, escaped and unescaped."""
    found = _parsed(address)
    if found is None:
        return
    hidden = [found.password]
    if found.scheme.lower().partition("+")[0] not in _SHOWN_USERS:
        hidden.append(found.user)
    for name, value in found.query:
        if value is None:
            hidden += [] if is_harmless(unquote_plus(name)) else [name]
        elif not is_harmless(unquote_plus(name)):
            hidden.append(value)
        else:
            yield from _secrets(unquote_plus(value))
    for secret in hidden:
        for form in {secret, unquote(secret), unquote_plus(secret)} if secret else ():
            yield form
            if form.startswith("-"):  # options of libpq: servers complain about the value of one, or about its name
                yield from (piece for piece in re.split(r"(?:^|\s)-(?:c\s*|-)|=", form) if len(piece) > _SHORT)
