#!/usr/bin/env python3
"""Runs a program that cannot see how the machine's network changes: ``without_netlink.py [ARGUMENT...]``.

``$WITHOUT_NETLINK`` names the program, because Playwright takes the path of a browser and not a command.

When a network interface comes or goes, Chromium drops all requests that wait for a connection (ERR_NETWORK_CHANGED).
Beside the tests of pages containers start and end, and each has an interface. Chromium learns of them by netlink, and
works without it. On other systems than Linux, and on other processors than those below, the program runs as it is.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # of linux/bpf_common.h, on words
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_CALL_AT, _FIRST_ARGUMENT_AT = 0, 16  # in struct seccomp_data
_SOCKET = {"x86_64": 41, "aarch64": 198}
_AF_NETLINK = 16


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse_netlink() -> None:
    """Has this process and its children be refused sockets of netlink."""
    code = [
        (_LOAD, 0, 0, _CALL_AT),
        (_JUMP_IF_EQUAL, 0, 3, _SOCKET[platform.machine()]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_JUMP_IF_EQUAL, 0, 1, _AF_NETLINK),
        (_RETURN, 0, 0, _ERRNO | errno.EACCES),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program = _Program(len(code), b"".join(struct.pack("=HBBI", *each) for each in code))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program))):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "prctl refuses a filter of system calls")


if __name__ == "__main__":
    if sys.platform == "linux" and platform.machine() in _SOCKET:
        refuse_netlink()
    program = os.environ["WITHOUT_NETLINK"]
    os.execvp(program, [program, *sys.argv[1:]])
