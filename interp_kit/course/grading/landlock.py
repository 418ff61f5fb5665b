"""Closes the files, the network and the other processes of the machine to this process and to all that it starts.

By Landlock, a part of Linux (5.13 and later) that needs no rights: https://docs.kernel.org/userspace-api/landlock.html.
What is closed stays closed, whatever runs in the process afterwards.
"""

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, the same on every kind of machine
PR_SET_NO_NEW_PRIVS = 38
PATH_BENEATH = 1  # the kind of a rule: what may be done beneath an open folder
# What may be done to files, a bit each: the first versions know fewer of them.
EXECUTE, READ_FILE, READ_DIR, WRITE_FILE, TRUNCATE = 1 << 0, 1 << 2, 1 << 3, 1 << 1, 1 << 14
READ = EXECUTE | READ_FILE | READ_DIR
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many bits there are, by version; later ones have the last's
ON_A_FILE = EXECUTE | READ_FILE | WRITE_FILE | TRUNCATE  # the others are a folder's
NETWORK, NETWORK_SINCE = 0b11, 4  # to bind and to connect a TCP socket
OTHERS, OTHERS_SINCE = 0b11, 6  # to reach a process outside by an abstract socket, and to send it a signal


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("others", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def landlock_version() -> int:
    """What the system knows of Landlock: 0 for nothing; from 4 on it closes TCP, from 6 on other processes."""
    if sys.platform != "linux":
        return 0
    return max(0, ctypes.CDLL(None).syscall(CREATE_RULESET, None, 0, 1))


def close_all_but(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """From here on this process, and what it starts, reads `readable` and `writable` alone and writes beneath
    `writable` alone; it makes no TCP connection, and sends no signal to a process outside. Paths that there are not are
    passed over.

    Raises OSError where the system cannot do it (`landlock_version`).

    >>> close_all_but(readable=[Path("/usr")], writable=[folder])
    """
    version = landlock_version()
    all_rights = (1 << FILE_RIGHTS.get(version, 16)) - 1
    rules = _Ruleset(all_rights, NETWORK if version >= NETWORK_SINCE else 0, OTHERS if version >= OTHERS_SINCE else 0)
    known = 8 * (1 + (version >= NETWORK_SINCE) + (version >= OTHERS_SINCE))  # bytes of it that the kernel reads
    ruleset = _call(CREATE_RULESET, ctypes.byref(rules), known, 0)
    try:
        for path in readable:
            _allow(ruleset, path, READ & all_rights)
        for path in writable:
            _allow(ruleset, path, all_rights)
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "this process may still gain rights")
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    if not path.exists():
        return
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(rights if path.is_dir() else rights & ON_A_FILE, handle)
        _call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(handle)


def _call(number: int, *arguments: object) -> int:
    found = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return found
