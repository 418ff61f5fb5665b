"""Python runs this at its start where PYTHONPATH names this folder: whoever reaches out of this machine is noted.

The attempt fails as it would without a network, and a line in the file that NETWORK_LOG names says who made it.
"""

import errno
import ipaddress
import os
import socket
import sys
import traceback

ADDRESS = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}
HERE = {"", "localhost", socket.gethostname()}


def _is_here(host: object) -> bool:
    if host is None or host in HERE:
        return True
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _watch(event: str, args: tuple) -> None:
    if event not in ADDRESS:
        return
    address = args[ADDRESS[event]]
    host = address[0] if isinstance(address, tuple) else address if event.startswith("socket.get") else None
    host = host.decode() if isinstance(host, bytes) else host
    if not _is_here(host):
        with open(os.environ["NETWORK_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{event} {host!r} from {''.join(traceback.format_stack(limit=8))}\n")
        raise OSError(errno.ENETUNREACH, f"the tests have no network: {host}")


sys.addaudithook(_watch)
