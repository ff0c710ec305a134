"""The names by which a page may be called, and the pages whose scripts may call it.

A browser lets the page of a stranger speak to whatever its name leads to, and the stranger decides where that is (DNS
rebinding); the browser says the name, though, and where the script came from. Knows no request beyond these words.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)\.?(?::(\d{1,5}))?")


def name_of(authority: str) -> str:
    """Return the name or address in ``name:port``, in lower case and without brackets; "" for what is neither."""
    whole = _AUTHORITY.fullmatch(authority.strip().lower())
    return "" if whole is None else whole[1].strip("[]")


def is_loopback(name: str) -> bool:
    """Return whether a name means the machine that says it, wherever a name server thinks it leads."""
    address = _address(name)
    return name == "localhost" if address is None else address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


@dataclass(frozen=True)
class Names:
    """The names of one server."""

    bound: str
    """The address it listens on."""
    more: frozenset[str]
    """What the owner added: a name, ``*.example.org`` for all below one, ``*`` for any."""

    @classmethod
    def of(cls, bound: str, more: Iterable[str]) -> "Names":
        names = {name.strip().lower().strip("[]").rstrip(".") for name in more}
        return cls(bound.lower().strip("[]"), frozenset(names - {""}))

    @property
    def is_open(self) -> bool:
        """Whether it listens on more than this machine's loopback."""
        return not is_loopback(self.bound)

    def is_known(self, name: str) -> bool:
        """Return whether the page may be called ``name``.

        Where it listens on all networks, any address is its own or nobody's: rebinding takes a name.
        """
        if not name:
            return False
        if is_loopback(name) or name == self.bound or self.is_added(name):
            return True
        if not self.is_open:
            return False
        host = socket.gethostname().lower()
        is_every = (found := _address(self.bound)) is None or found.is_unspecified
        return is_every and (_address(name) is not None or name in (host, f"{host.partition('.')[0]}.local"))

    def is_added(self, name: str) -> bool:
        """Return whether the owner named ``name``."""
        if name in self.more or "*" in self.more:
            return True
        return any(each.startswith("*.") and name.endswith(each[1:]) for each in self.more)

    def is_own_origin(self, origin: str, authority: str) -> bool:
        """Return whether a script from ``origin`` may call the page that was called ``authority``: it is the same
        page, or one of a name that the owner added, as behind a proxy that keeps its own name to itself."""
        try:
            parts = urlsplit(origin.strip().lower())
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or not name_of(parts.netloc):
            return False
        if parts.netloc == authority.strip().lower():
            return True
        name = name_of(parts.netloc)
        if name == name_of(authority) and not is_loopback(name):
            return True  # a proxy that took the port away
        return "*" not in self.more and self.is_added(name)
