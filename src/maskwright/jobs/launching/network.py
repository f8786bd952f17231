"""Which address of this machine others can reach, without asking what it calls itself.

The name of a machine often leads to 127.0.1.1, or to a network that the others do not share. The way to
the first machine is certain: it is the one that the run uses.
"""

from __future__ import annotations

import socket
import struct
import time

from ...core.errors import ConfigError, MaskwrightError
from ...core.log import get_logger

__all__ = ["interface_of", "local_address", "split_address", "wait_for_listener"]

log = get_logger(__name__)

_AGAIN_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, also of `[IPV6]:PORT`.

    Raises:
        ConfigError: it is something else.
    """
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--address is {text!r}, expected HOST:PORT with a port from 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def local_address(host: str, port: int, node_rank: int, patience: float = 0.0) -> str:
    """The address under which the other machines reach this one.

    Args:
        host: name or address of the first machine.
        port: where it listens.
        node_rank: number of this machine; the first is reached by the name that all were given.
        patience: seconds in which the name may come to lead somewhere; on a cluster it often
            begins to exist only when the first machine does.

    Raises:
        MaskwrightError: the name leads nowhere.
    """
    if node_rank == 0:
        return host
    end, told = time.monotonic() + patience, False
    while True:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)  # chooses a way; a datagram socket sends nothing for it
                return str(probe.getsockname()[0])
        except OSError as error:
            reason = error.strerror or str(error)
            if time.monotonic() >= end:
                raise MaskwrightError(
                    f"--address names {host}, which cannot be reached ({reason}); check the name and the "
                    "network"
                ) from error
        if not told:
            log.warning("%s cannot be reached yet (%s); trying for %.0f s", host, reason, patience)
            told = True
        time.sleep(min(_AGAIN_SECONDS, max(0.0, end - time.monotonic())))


def wait_for_listener(host: str, port: int, patience: float) -> bool:
    """Wait until somebody listens at an address, asking once a second.

    The store of torch waits longer after each try, and would come too late to one that is there for half a
    minute only.

    Args:
        host: name or address.
        port: where it listens.
        patience: seconds.

    Returns:
        Whether somebody does.
    """
    end = time.monotonic() + patience
    while True:
        try:
            with socket.create_connection((host, port), timeout=_CONNECT_SECONDS):
                return True
        except OSError:
            if time.monotonic() >= end:
                return False
        time.sleep(_AGAIN_SECONDS)


def interface_of(address: str) -> str | None:
    """Name of the network interface that has an IPv4 address; None where the system does not tell.

    Args:
        address: an address or a name of this machine.
    """
    try:
        import fcntl

        wanted = socket.inet_aton(socket.gethostbyname(address))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name.encode()[:15])
                try:
                    answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
                except OSError:  # it has none
                    continue
                if answer[20:24] == wanted:
                    return name
    except (ImportError, OSError):
        return None
    return None
