"""The filter against the kernel's own tables, and the rules that only old kernels need."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import seccomp

HEADERS = {
    0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    1: Path("/usr/include/asm-generic/unistd.h"),
}
TABLES = {
    **seccomp.DENIED,
    **seccomp.IGNORED,
    **seccomp.UNKNOWN,
    **seccomp.PARTLY,
}
# Named differently, or newer than, the headers of Debian 12.
NEWER = {"fchmodat2", "statmount", "listmount", "name_to_handle_at", "open_by_handle_at"}


@pytest.mark.parametrize("column", HEADERS)
def test_the_numbers_are_the_kernels(column: int) -> None:
    if not HEADERS[column].exists():
        pytest.skip("needs linux-libc-dev")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[column].read_text())
    known = {name: int(number) for name, number in found}
    for name, numbers in TABLES.items():
        if name not in NEWER:
            assert known.get(name, -1) == numbers[column], name


@pytest.mark.parametrize("machine", seccomp.AUDIT_ARCH)
def test_every_instruction_stays_inside(machine: str) -> None:
    """Jumps are relative and of a byte; the last instruction allows."""
    code = list(seccomp.program(machine, seccomp.own_signals(1)))
    assert len(code) < 4096
    for at, instruction in enumerate(code):
        kind, true, false = instruction[0], instruction[2], instruction[3]
        if kind in (seccomp.IS, seccomp.HAS, seccomp.FROM):
            assert at + 1 + max(true, false) < len(code)


SIGNALS = """
import os, signal, subprocess, sys
from sandbox import kernel, seccomp
other = subprocess.Popen(["/bin/sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
seccomp.install(seccomp.own_signals(os.getpid()))
pidfd = os.pidfd_open(other.pid)
for attempt in (
    lambda: os.kill(other.pid, 9),
    lambda: os.kill(-1, 0),
    lambda: signal.pidfd_send_signal(pidfd, 9),
    lambda: kernel.syscall({"x86_64": 234}.get(os.uname().machine, 131), other.pid, other.pid, 9),
    lambda: kernel.syscall({"x86_64": 200}.get(os.uname().machine, 130), other.pid, 9),
):
    try:
        attempt()
        print("sent")
    except PermissionError:
        print("refused")
os.kill(os.getpid(), 0)
print("itself", flush=True)
print(other.pid, flush=True)
os.abort()
"""


@pytest.mark.skipif(platform.machine() not in seccomp.AUDIT_ARCH, reason="no table")
def test_where_landlock_lets_signals_out_the_filter_does_not() -> None:
    """The kernel here may be newer; the rules of older ones hold all the same."""
    done = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True)
    lines = done.stdout.split()
    os.kill(int(lines[-1]), signal.SIGKILL)
    assert lines[:-1] == ["refused"] * 5 + ["itself"], done.stderr
    assert done.returncode == -signal.SIGABRT
