"""A request as its first lines say it: what it asks for, who says to be asking. Believes none of it, reads no body."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

API = "/gradio_api/"
COOKIE = re.compile(r"studio_visitor_[0-9a-f]{8}=([A-Za-z0-9_-]{32})")
MAX_COOKIES = 4
"""Of ours that are looked at: two tabs opened at once have each brought one."""
FORWARDED = ("forwarded", "via", "x-real-ip")
"""What a proxy adds, beside all that begins with ``x-forwarded-``."""
UNKNOWN = "unknown"
"""The address of whom a proxy that nobody vouched for calls whatever it likes."""


@dataclass(frozen=True)
class Asked:
    """One request's first lines."""

    method: str
    path: str
    headers: Mapping[str, tuple[str, ...]]
    peer: str
    """The address that the connection comes from, as the server says it."""
    is_https: bool

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> "Asked":
        headers: dict[str, tuple[str, ...]] = {}
        for key, value in scope["headers"]:
            name = key.decode("latin-1").lower()
            headers[name] = (*headers.get(name, ()), value.decode("latin-1"))
        client = scope.get("client")
        return cls(scope["method"], scope["path"], headers, client[0] if client else "", scope.get("scheme") == "https")

    def header(self, name: str) -> str:
        """Return a header's value, "" where there is none or more than one."""
        values = self.headers.get(name, ())
        return values[0] if len(values) == 1 else ""

    @property
    def api(self) -> str | None:
        """What is asked of Gradio's functions and files, None for the page itself."""
        _, found, rest = self.path.partition(API)
        return rest if found else None

    @property
    def is_forwarded(self) -> bool:
        """Whether a proxy says that it passes this on for somebody else."""
        return any(name in FORWARDED or name.startswith("x-forwarded-") for name in self.headers)

    @property
    def cookies(self) -> tuple[str, ...]:
        """The visitor's names for itself that we gave it, oldest first."""
        return tuple(COOKIE.findall("; ".join(self.headers.get("cookie", ()))))[:MAX_COOKIES]

    @property
    def is_from_another_page(self) -> bool:
        """Whether the page of somebody else holds this in itself: as a picture, a script, whatever is no visit."""
        site = self.header("sec-fetch-site")
        return site in ("cross-site", "same-site") and self.header("sec-fetch-mode") != "navigate"

    def address(self, has_proxy: bool) -> str:
        """Return whose limits count: an IPv4 address, or the 64 bits that one subscriber has in IPv6.

        ``has_proxy``: a proxy of the owner's stands before the page; then it is what the outermost one that is not of
        a private network was asked by. What else a proxy says is not believed, and all that it passes count as one.
        """
        said = [each.strip() for line in self.headers.get("x-forwarded-for", ()) for each in line.split(",")]
        if not has_proxy:
            return UNKNOWN if self.is_forwarded else _network(self.peer)
        reached = [each for each in reversed(said) if _is_global(each)]
        return _network(reached[0]) if reached else UNKNOWN


def _is_global(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return UNKNOWN
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
