"""Who comes, and which sessions and files are whose. Knows the names that browsers were given, and no session.

The session of a tab has a name that the tab itself thinks of. Whoever says such a name first has it, by the cookie that
the page gave the browser; others are refused. A browser that keeps no cookies is known by its address alone.
"""

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from studio.session.visitor import Visitor

MAX_NAMES = 50_000
"""Sessions and files whose owner is remembered: weeks of a busy page. The one not used longest is forgotten first."""
MAX_EXPORTS = 10_000
MAX_VISITORS = 50_000


@dataclass(frozen=True)
class Who:
    """Somebody who asks: what is known of them, and by what."""

    visitor: Visitor
    keys: tuple[str, ...]
    """What they are known by: their cookies, or their address."""
    has_cookie: bool
    address: str


@dataclass
class Visitors:
    """All who came since the server began, or the newest of them."""

    clock: Callable[[], float] = time.monotonic
    _numbers: "OrderedDict[str, int]" = field(default_factory=OrderedDict)
    _counted: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _owners: "OrderedDict[str, Who]" = field(default_factory=OrderedDict)

    _fetchers: "OrderedDict[str, Who]" = field(default_factory=OrderedDict)
    """Whose an export is: apart, for whoever makes names of exports up must not wash sessions away."""

    def who(self, cookies: tuple[str, ...], address: str, is_owner: bool) -> Who:
        """Return who brings these cookies from this address."""
        at = f"address {address}"
        keys = tuple(f"cookie {each}" for each in cookies) or (at,)
        return Who(Visitor(self._number(keys[0]), self._number(at), is_owner), keys, bool(cookies), address)

    def _number(self, key: str) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = next(self._counted)
            if len(self._numbers) > MAX_VISITORS:
                self._numbers.popitem(last=False)
        self._numbers.move_to_end(key)
        return number

    def is_new(self, name: str) -> bool:
        """Return whether nobody has a name yet."""
        return name not in self._owners

    def may_use(self, name: str, who: Who) -> bool:
        """Return whether a name is theirs, which it is from now on if it was nobody's.

        What began without a cookie goes over to the first one from the same address: the same browser, in a new tab.
        """
        return _is_theirs(self._owners, MAX_NAMES, name, who)

    def may_fetch(self, export: str, who: Who) -> bool:
        """Return the same of an export, which is its first fetcher's."""
        return _is_theirs(self._fetchers, MAX_EXPORTS, export, who)

    def owner(self, name: str) -> Who | None:
        """Return whose a name is, None where it is nobody's."""
        return self._owners.get(name)


def _is_theirs(owners: "OrderedDict[str, Who]", most: int, name: str, who: Who) -> bool:
    owner = owners.get(name)
    if owner is None or (not owner.has_cookie and who.has_cookie and owner.address == who.address):
        owners[name] = who
        while len(owners) > most:
            owners.popitem(last=False)
        return True
    owners.move_to_end(name)
    return not set(owner.keys).isdisjoint(who.keys)
