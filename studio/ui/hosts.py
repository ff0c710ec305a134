"""The machine that a visitor names, by its name in the menu: typical ones, this one, one's own. Knows no page."""

import psutil

from studio.planning import hosts
from studio.planning.hosts import Host, own_host
from studio.runtime import machine


def host_of(name: str, memory: object = None, bandwidth: object = None) -> Host:
    """Return the machine called ``name``; ``memory`` in GB and ``bandwidth`` in GB/s are those of one's own."""
    if name == hosts.OWN:
        return own_host(_number(memory), _number(bandwidth))
    if name == hosts.THIS:
        known = machine.known("cpu")
        whole = psutil.virtual_memory().total
        taken = max(0, whole - machine.available_memory())
        return Host(hosts.THIS, whole, known.bandwidth if known is not None else 0.0, taken)
    return hosts.HOSTS.get(name, hosts.HOSTS[hosts.DEFAULT])


def _number(given: object) -> float:
    return float(given) if isinstance(given, int | float) else 0.0
