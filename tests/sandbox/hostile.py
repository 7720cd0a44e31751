"""Hostile programs: each says what it tries, and what must come of it. Data for `stage`; runs nothing.

A program prints WORKED where it reached its goal, or changes what `stage.Host` watches. Outside of a sandbox
it must do one of the two (the positive control); inside, neither. Where the trick is in what it leaves
behind (`refused=False`), the outcome must be one of those named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sandbox.run import File, Limits, Outcome

PRELUDE = """
import ctypes, errno, json, os, resource, signal, socket, struct, sys, time
plan = json.load(open("in/plan.json"))
libc = ctypes.CDLL(None, use_errno=True)
def worked(*what):
    print("WORKED", *what, flush=True)
def call(number, *arguments):
    "A system call that must not fail."
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *values)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def daemon():
    "Fork twice, in a session of its own; True in the daemon."
    if os.fork():
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    return True
def mark():
    "Become a process that the host can recognise."
    os.execv("/bin/sleep", ["sleep", plan["mark"]])
"""
QUICK = Limits(wall_seconds=5.0)
SMALL = Limits(
    wall_seconds=8.0,
    memory_bytes=512 << 20,
    scratch_bytes=16 << 20,
    scratch_files=500,
    processes=30,
    output_bytes=100_000,
)
MB = 1 << 20


@dataclass(frozen=True)
class Attack:
    """A program and what must come of it.

    ``control``: who reaches the goal outside, None where nobody can. ``lasting``: outside it would never
    end. ``unstopped``: level -> the words with which `sandbox.levels` owns up to not stopping it.
    """

    name: str
    tries: str
    source: str
    outcomes: tuple[Outcome, ...] = (Outcome.OK, Outcome.CRASHED)
    refused: bool = True
    control: Literal["any", "root"] | None = "any"
    lasting: bool = False
    results: tuple[File, ...] = ()
    limits: Limits = QUICK
    inputs: dict[str, str] = field(default_factory=dict)
    unstopped: dict[str, str] = field(default_factory=dict)


def result(name: str, tries: str, source: str, kind: str = "json", **more: object) -> Attack:
    """A trick with the one declared result, `out/r`, which must be refused."""
    outcomes = (Outcome.BAD_RESULT, Outcome.CRASHED)
    declared = (File("r", kind, 1000),)  # type: ignore[arg-type]
    return Attack(name, tries, source, outcomes, False, results=declared, **more)  # type: ignore[arg-type]


NETWORK = [
    Attack(
        "tcp",
        "connects to a port of the host; refused",
        "socket.create_connection(('127.0.0.1', plan['tcp']), 2); worked()",
    ),
    Attack(
        "tcp-listen",
        "listens for others; refused",
        "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); worked()",
    ),
    Attack(
        "udp",
        "sends a datagram to the host; none arrives",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', plan['udp']))",
    ),
    Attack(
        "dns",
        "smuggles a secret out as a name to look up; the server sees no query",
        """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('127.0.0.1', plan['udp']))
s.send(b'\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\6secret\\4test\\0\\0\\1\\0\\1')
""",
    ),
    Attack(
        "unix-abstract",
        "connects to an abstract unix socket of the host; refused",
        "s = socket.socket(socket.AF_UNIX); s.connect(plan['abstract'].encode('latin-1')); worked()",
    ),
    Attack(
        "unix-path",
        "connects to a unix socket that has a path; refused",
        "s = socket.socket(socket.AF_UNIX); s.connect(plan['folder'] + '/socket'); worked()",
    ),
    Attack(
        "unix-pair",
        "sends to a socket of the host through one of a pair; nothing arrives",
        """
one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
one.sendto(b'x', plan['folder'] + '/datagrams')
""",
    ),
    Attack(
        "netlink",
        "asks the kernel for its routes; refused",
        "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); s.bind((0, 0)); worked()",
    ),
    Attack("vsock", "opens a socket to the hypervisor; refused", "socket.socket(40, 1); worked()"),
    Attack(
        "packet",
        "opens a raw packet socket; refused",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); worked()",
        control="root",
    ),
]

SECRETS = [
    Attack(
        "environment",
        "looks for the key in its own environment; it is not there",
        """
if any(plan['key_value'] in v for v in os.environ.values()): worked()
if plan['key_value'].encode() in open('/proc/self/environ', 'rb').read(): worked()
""",
    ),
    Attack(
        "parents-environment",
        "reads the environment of the supervisor and of every process above; refused or empty of keys",
        """
for pid in [plan['supervisor'], *range(1, os.getpid() + 50)]:
    try:
        if plan['key_value'].encode() in open(f'/proc/{pid}/environ', 'rb').read(): worked()
    except OSError:
        pass
""",
    ),
    Attack(
        "parents-memory",
        "opens the supervisor's memory; refused",
        "open(f\"/proc/{plan['supervisor']}/mem\", 'rb'); worked()",
    ),
    Attack(
        "process-vm-readv",
        "reads the supervisor's memory by a system call; refused before it gets to an address",
        """
iov = (ctypes.c_ulong * 2)(0, 8)
try:
    call({'x86_64': 310}.get(os.uname().machine, 270), plan['supervisor'], iov, 1, iov, 1, 0)
except OSError as error:
    if error.errno == errno.EFAULT: worked()
""",
    ),
    Attack(
        "ptrace",
        "attaches to a process of the host; refused",
        "call({'x86_64': 101}.get(os.uname().machine, 117), 0x4206, plan['victim'], 0, 0); worked()",
    ),
    Attack(
        "pidfd-getfd",
        "takes a descriptor of the supervisor's; refused",
        "call(438, os.pidfd_open(plan['supervisor']), 1, 0); worked()",
    ),
    Attack(
        "users-file",
        "reads a private file of the user; refused",
        "worked(open(plan['folder'] + '/secret').read())",
    ),
    Attack(
        "evaluation-labels",
        "reads labels that lie on disk for all to read; refused",
        "worked(open(plan['folder'] + '/labels.json').read())",
    ),
    Attack(
        "corpus",
        "reads the help texts that come with Python, which hold what a model is scored on; refused",
        """
import glob
places = {os.path.dirname(os.__file__), '/usr/lib/python3*', '/lib/python3*', '/usr/local/lib/python3*'}
for name in [found for place in places for found in glob.glob(place + '/pydoc_data/**', recursive=True)]:
    try:
        worked(name) if open(name).read(1) else None
    except OSError:
        pass
from pydoc_data.topics import topics
worked()
""",
    ),
    Attack(
        "checkout",
        "lists the checkout, where run folders and ledgers lie; refused, or only our packages are there",
        "worked() if {'tests', 'pyproject.toml'} & set(os.listdir(plan['checkout'])) else None",
    ),
    Attack(
        "proc",
        "lists the processes of the machine and reads the supervisor's command line; refused",
        "worked() if plan['mark'] in open(f\"/proc/{plan['victim']}/cmdline\").read() else None",
    ),
    Attack(
        "magic-links",
        "reaches a file through /proc/self/root; refused",
        "worked(open('/proc/self/root' + plan['folder'] + '/secret').read())",
    ),
    Attack(
        "handle",
        "opens a file by its handle, which has no path; refused",
        """
class Handle(ctypes.Structure):
    _fields_ = [('size', ctypes.c_uint), ('kind', ctypes.c_int), ('data', ctypes.c_ubyte * 128)]
handle, where = Handle(128), ctypes.c_int()
path = (plan['folder'] + '/secret').encode()
table = {'x86_64': (303, 304)}.get(os.uname().machine, (264, 265))
call(table[0], -100, path, ctypes.byref(handle), ctypes.byref(where), 0)
folder = os.open(plan['folder'], os.O_RDONLY)
worked(os.read(call(table[1], folder, ctypes.byref(handle), 0), 100))
""",
        control="root",
    ),
    Attack(
        "disk",
        "opens a disk or the machine's memory as a device; refused",
        """
import glob
disks = [path for kind in ('vd', 'sd', 'nvme') for path in glob.glob(f'/dev/{kind}*')]
for path in [*disks, '/dev/mem', '/dev/kmsg']:
    try:
        os.open(path, os.O_RDONLY); worked(path)
    except OSError:
        pass
""",
        control="root",
    ),
    Attack(
        "inotify",
        "watches what the user does in a folder; refused",
        """
watch = libc.inotify_init()
if libc.inotify_add_watch(watch, plan['folder'].encode(), 2) >= 0: worked()
""",
    ),
    Attack(
        "inherited-files",
        "writes to descriptors that it was born with; there are none but its log",
        """
for fd in range(3, 300):
    try:
        os.write(fd, b'{}'); worked(fd)
    except OSError:
        pass
""",
    ),
    Attack(
        "stat",
        "looks whether a file is there, and how large it is",
        "worked(os.stat(plan['folder'] + '/secret').st_size)",
        unstopped={"landlock": "looking at names, sizes and times of files whose path is known"},
    ),
    Attack(
        "pids",
        "learns whether a process of the host is there",
        """
try:
    os.kill(plan['victim'], 0); worked()
except ProcessLookupError:
    pass
except PermissionError:
    worked()
""",
        unstopped={"landlock": "learning which PIDs exist"},
    ),
]

WRITING = [
    Attack(
        "write-outside",
        "makes a file in a folder that is open to all; refused",
        "open(plan['folder'] + '/open/planted', 'w').write('x')",
    ),
    Attack(
        "dot-dot",
        "makes a file beside its own folder; refused",
        "open('../planted', 'w').write('x'); worked()",
    ),
    Attack(
        "overwrite",
        "overwrites a file of the user; refused",
        "open(plan['folder'] + '/secret', 'r+').write('x')",
    ),
    Attack(
        "truncate",
        "empties a file of the user by its path; refused",
        "os.truncate(plan['folder'] + '/secret', 0)",
    ),
    Attack(
        "unlink",
        "removes a file of the user; refused",
        "os.unlink(plan['folder'] + '/secret')",
    ),
    Attack(
        "rename",
        "moves a file of the user into its own folder; refused",
        "os.rename(plan['folder'] + '/secret', 'tmp/secret')",
    ),
    Attack(
        "chmod",
        "opens a private file to all; nothing changes, though the call may seem to succeed",
        "os.chmod(plan['folder'] + '/secret', 0o666)",
    ),
    Attack(
        "utime",
        "sets a file's times back; nothing changes",
        "os.utime(plan['folder'] + '/secret', (1, 1))",
    ),
    Attack(
        "xattr",
        "leaves an attribute on a file of the user; refused",
        "os.setxattr(plan['folder'] + '/secret', 'user.x', b'x')",
    ),
    Attack(
        "chown",
        "gives a file away; refused",
        "os.chown(plan['folder'] + '/secret', 1, 1)",
        control="root",
    ),
    Attack(
        "setuid",
        "makes a program that runs as its owner; no file has the bit",
        """
fd = os.open('tmp/x', os.O_CREAT | os.O_WRONLY, 0o4755)
os.fchmod(fd, 0o4755); os.chmod('tmp/x', 0o4755)
if os.stat('tmp/x').st_mode & 0o4000: worked()
""",
    ),
    Attack(
        "device",
        "makes a device node of the disk; refused",
        "os.mknod('tmp/null', 0o666 | 0o20000, os.makedev(1, 3)); worked()",
        control="root",
    ),
    Attack(
        "core-pattern",
        "opens the host's core_pattern to write, which would run a program as root; refused",
        "os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY); worked()",
        control="root",
    ),
    Attack(
        "clock",
        "sets the clock (to what it is); refused",
        "time.clock_settime(time.CLOCK_REALTIME, time.time()); worked()",
        control="root",
    ),
    Attack(
        "hostname",
        "sets the machine's name (to what it is); refused",
        "socket.sethostname(socket.gethostname()); worked()",
        control="root",
    ),
    Attack(
        "shared-memory",
        "leaves a file in /dev/shm; refused",
        "open('/dev/shm/archwright-planted', 'w').write('x')",
    ),
    Attack(
        "sysv-memory",
        "leaves a segment of System V memory; refused",
        "call({'x86_64': 29}.get(os.uname().machine, 194), 0, 4096, 0o1600); worked()",
    ),
    Attack(
        "message-queue",
        "opens a POSIX queue that outlives it; refused",
        """
number = {'x86_64': (240, 241)}.get(os.uname().machine, (180, 181))
call(number[0], b'archwright-planted', 0o102, 0o600, 0); call(number[1], b'archwright-planted'); worked()
""",
    ),
    Attack(
        "keyring",
        "leaves a key in the user's keyring; refused",
        "call({'x86_64': 248}.get(os.uname().machine, 217), b'user', b'archwright', b'x', 1, -2); worked()",
    ),
    Attack(
        "poison-packages",
        "plants a module among the installed packages; refused",
        """
path = os.path.join(plan['packages'], 'archwright-planted.py')
open(path, 'w').write('x'); os.unlink(path); worked()
""",
        control="root",
    ),
    Attack(
        "poison-inputs",
        "changes its own inputs, which a later stage might read; refused",
        "open('in/plan.json', 'a').write(' '); worked()",
    ),
]

KERNEL = [
    Attack(
        "user-namespace",
        "makes a user namespace, in which it would be root; refused",
        "if libc.unshare(0x10000000) == 0: worked()",
    ),
    Attack(
        "clone-namespace",
        "makes one by clone; refused",
        """
pid = call({'x86_64': 56}.get(os.uname().machine, 220), 0x10000000 | 17, 0, 0, 0, 0)
if pid == 0: os._exit(0)
worked()
""",
    ),
    Attack(
        "clone3",
        "makes one by clone3, whose flags no filter sees; refused",
        """
arguments = (ctypes.c_ulong * 8)(0x10000000, 0, 0, 0, 17)
pid = call(435, ctypes.byref(arguments), 64)
if pid == 0: os._exit(0)
worked()
""",
    ),
    Attack(
        "mount",
        "asks for a new mount; refused",
        "call(430, b'tmpfs', 0); worked()",
        control="root",
    ),
    Attack("chroot", "changes its root; refused", "os.chroot('/usr'); worked()", control="root"),
    Attack(
        "io-uring",
        "sets up a ring, whose operations no filter sees; refused",
        "call(425, 2, (ctypes.c_ubyte * 120)()); worked()",
    ),
    Attack(
        "bpf",
        "makes a BPF map; refused",
        """
call({'x86_64': 321}.get(os.uname().machine, 280), 0, (ctypes.c_uint * 16)(2, 4, 4, 1), 64); worked()
""",
        control="root",
    ),
    Attack(
        "perf",
        "counts events of the kernel; refused",
        """
attributes = (ctypes.c_uint * 32)(1, 128)
call({'x86_64': 298}.get(os.uname().machine, 241), attributes, 0, -1, -1, 0); worked()
""",
        control="root",
    ),
    Attack(
        "userfaultfd",
        "stops the kernel in the middle of a copy; refused",
        "call({'x86_64': 323}.get(os.uname().machine, 282), 0); worked()",
        control="root",
    ),
    Attack(
        "terminal",
        "types into the terminal behind it; refused before the kernel asks whether there is one",
        """
try:
    import fcntl; fcntl.ioctl(0, 0x5412, b'x')
except OSError as error:
    if error.errno == errno.ENOTTY: worked()
""",
    ),
    Attack(
        "personality",
        "switches off the randomness of addresses; refused",
        "call({'x86_64': 135}.get(os.uname().machine, 92), 0x0040000); worked()",
    ),
    Attack(
        "other-architecture",
        "makes a call of 32-bit x86, whose numbers mean others; killed",
        """
if os.uname().machine == 'x86_64':
    import mmap
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(bytes.fromhex('b814000000cd80c3'))
    run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    if run() == os.getpid(): worked()
""",
        outcomes=(Outcome.CRASHED,),
    ),
    Attack(
        "setuid-root",
        "becomes root; refused",
        "os.setresuid(0, 0, 0); worked()",
        control="root",
        unstopped={},
    ),
]

OTHERS = [
    Attack(
        "kill",
        "kills a process of the host; it lives",
        "os.kill(plan['victim'], signal.SIGKILL)",
    ),
    Attack(
        "kill-by-pidfd",
        "kills it by a descriptor; it lives",
        "signal.pidfd_send_signal(os.pidfd_open(plan['victim']), signal.SIGKILL)",
    ),
    Attack(
        "kill-by-file",
        "has the kernel send a signal on its behalf when a pipe becomes ready; it lives",
        """
import fcntl
reader, writer = os.pipe()
fcntl.fcntl(reader, fcntl.F_SETOWN, plan['victim']); fcntl.fcntl(reader, 10, signal.SIGKILL)
fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC); os.write(writer, b'x'); time.sleep(.05)
""",
    ),
    Attack(
        "starve-limits",
        "lowers the limits of a process of the host; they stay",
        "resource.prlimit(plan['victim'], resource.RLIMIT_NOFILE, (3, 3))",
    ),
    Attack(
        "starve-priority",
        "lowers its priority; it stays",
        "os.setpriority(os.PRIO_PROCESS, plan['victim'], 19)",
    ),
    Attack(
        "starve-affinity",
        "pins it to one core; it stays",
        "os.sched_setaffinity(plan['victim'], {min(os.sched_getaffinity(0))})",
    ),
    Attack(
        "kill-neighbours",
        "signals every process that it can name: the keeper, the warm parent, other runs; none can be",
        """
for pid in range(2, max(os.getpid() + 30, 100)):
    try:
        if pid not in (os.getpid(), 1): os.kill(pid, 0); worked(pid)
    except OSError:
        pass
""",
    ),
    Attack(
        "neighbours-folder",
        "reads what another run was given; refused",
        """
for n in range(16):
    try:
        worked(open(f'../{n}/in/secret.txt').read())
    except OSError:
        pass
""",
    ),
    Attack(
        "neighbours-list",
        "lists the folders of other runs; refused",
        "worked(os.listdir('..'))",
    ),
]

LASTING = [
    Attack(
        "daemon",
        "leaves a daemon by forking twice and setsid; it is gone",
        "if daemon(): mark()",
    ),
    Attack(
        "daemon-deaf",
        "leaves a daemon that ignores every signal it can; it is gone",
        """
if daemon():
    for n in (1, 2, 3, 13, 14, 15): signal.signal(n, signal.SIG_IGN)
    mark()
""",
    ),
    Attack(
        "daemon-stopped",
        "leaves a daemon that is stopped; it is gone",
        """
if daemon():
    if os.fork() == 0: mark()
    os.kill(os.getpid(), signal.SIGSTOP)
""",
    ),
    Attack(
        "daemon-pipe",
        "leaves a daemon that holds its log open; the run ends all the same, the daemon is gone",
        """
if daemon():
    if os.fork() == 0: mark()
    while True: time.sleep(1)
""",
    ),
    Attack(
        "daemon-subreaper",
        "adopts its own daemons, away from the keeper; they are gone",
        """
libc.prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
    if daemon(): mark()
    os._exit(0)
time.sleep(.05)
""",
    ),
    Attack(
        "daemon-chain",
        "forks without end, each parent ending at once; the chain is gone",
        """
if os.fork() == 0:
    end = time.monotonic() + 3
    while time.monotonic() < end:
        if os.fork(): os._exit(0)
    mark()
time.sleep(.1)
""",
        outcomes=(Outcome.OK, Outcome.CRASHED, Outcome.PROCESSES),
        control=None,
    ),
    Attack(
        "endless",
        "ignores SIGTERM and never ends; ended by wall clock",
        "signal.signal(15, signal.SIG_IGN)\nwhile True: time.sleep(1)",
        outcomes=(Outcome.TIMEOUT,),
        lasting=True,
        limits=Limits(wall_seconds=0.3),
    ),
    Attack(
        "stopped",
        "stops itself; ended by wall clock",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        outcomes=(Outcome.TIMEOUT,),
        lasting=True,
        limits=Limits(wall_seconds=0.3),
    ),
    Attack(
        "endless-daemons",
        "outlives the wall clock with two sessions of daemons; all are gone",
        "if daemon() or daemon(): mark()\nwhile True: time.sleep(1)",
        outcomes=(Outcome.TIMEOUT,),
        limits=Limits(wall_seconds=0.3),
        lasting=True,
    ),
    Attack(
        "cpu",
        "computes for ever in two processes; ended by CPU seconds",
        """
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
os.fork()
while True: pass
""",
        outcomes=(Outcome.CPU,),
        limits=Limits(wall_seconds=30.0, cpu_seconds=0.3),
        lasting=True,
    ),
]

HOGS = [
    Attack(
        "fork-bomb",
        "becomes hundreds of processes; ended",
        """
for n in range(300):
    if os.fork() == 0: time.sleep(5); os._exit(0)
worked()
os.killpg(0, 9)
""",
        outcomes=(Outcome.PROCESSES, Outcome.MEMORY, Outcome.CRASHED),
        limits=SMALL,
    ),
    Attack(
        "thread-bomb",
        "becomes hundreds of threads; ended",
        """
import threading
for n in range(300): threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
worked(); os._exit(0)
""",
        outcomes=(Outcome.PROCESSES, Outcome.CRASHED),
        limits=SMALL,
    ),
    Attack(
        "memory",
        "fills memory; ended",
        """
held = []
for n in range(14): held.append(bytearray(b'x') * (50 << 20)); time.sleep(.01)
time.sleep(.2); worked()
""",
        outcomes=(Outcome.MEMORY,),
        limits=SMALL,
    ),
    Attack(
        "memory-in-parts",
        "fills memory with processes that are small each; ended",
        """
reader, writer = os.pipe()
if all(os.fork() for _ in range(4)):
    for _ in range(4): os.read(reader, 1)
    time.sleep(.3); worked(); os.killpg(0, 9)
held = bytearray(b'x') * (180 << 20)
os.write(writer, b'x'); time.sleep(20)
""",
        outcomes=(Outcome.MEMORY,),
        limits=SMALL,
    ),
    Attack(
        "memory-shared",
        "fills shared memory; ended",
        """
import mmap
shared = mmap.mmap(-1, 640 << 20)
for at in range(0, 640 << 20, 1 << 20): shared[at : at + (1 << 20)] = b'x' * (1 << 20)
time.sleep(.2); worked()
""",
        outcomes=(Outcome.MEMORY,),
        limits=SMALL,
    ),
    Attack(
        "memory-files",
        "fills memory that no process maps; refused",
        """
fd = os.memfd_create('x')
for n in range(64): os.write(fd, bytes(1 << 20))
worked()
""",
        limits=SMALL,
    ),
    Attack(
        "disk-space",
        "writes more than it may; ended",
        """
for n in range(64):
    open(f'tmp/{n}', 'wb').write(bytes(1 << 20)); time.sleep(.01)
worked()
""",
        outcomes=(Outcome.SCRATCH,),
        limits=SMALL,
    ),
    Attack(
        "disk-space-at-once",
        "writes more than it may and ends before anyone looks; found all the same",
        "open('tmp/x', 'wb').write(bytes(40 << 20)); worked()",
        outcomes=(Outcome.SCRATCH,),
        refused=False,
        limits=SMALL,
    ),
    Attack(
        "disk-space-deleted",
        "writes to files that have no name any more",
        """
held = []
for n in range(64):
    held.append(open('tmp/x', 'wb', buffering=0)); os.unlink('tmp/x')
    held[-1].write(bytes(1 << 20)); time.sleep(.01)
worked()
""",
        outcomes=(Outcome.SCRATCH,),
        limits=SMALL,
        unstopped={"landlock": "bytes of files that were deleted but are held open"},
    ),
    Attack(
        "large-file",
        "makes one file larger than it may, as a hole; refused",
        "f = open('tmp/x', 'wb'); f.truncate(1 << 40); worked()",
        outcomes=(Outcome.SCRATCH, Outcome.CRASHED),
    ),
    Attack(
        "inodes",
        "makes thousands of empty files; ended",
        """
for n in range(4000):
    open(f'tmp/{n}', 'w').close()
    if n % 500 == 0: time.sleep(.03)
worked()
""",
        outcomes=(Outcome.SCRATCH,),
        limits=SMALL,
    ),
    Attack(
        "deep-folders",
        "makes folders 1,200 deep, which break a naive removal; the next run finds nothing of them",
        """
os.chdir('tmp')
for n in range(1200): os.mkdir('d'); os.chdir('d')
worked()
""",
        outcomes=(Outcome.OK, Outcome.SCRATCH),
        refused=False,
    ),
    Attack(
        "closed-folder",
        "makes a folder that not even its owner may enter, with a file in it",
        """
os.mkdir('tmp/d'); open('tmp/d/x', 'w').close()
os.umask(0o777); os.mkdir('tmp/e'); os.mkdir('out/f', 0); worked()
""",
        outcomes=(Outcome.OK, Outcome.SCRATCH),
        refused=False,
    ),
    Attack(
        "descriptors",
        "opens a thousand files; refused",
        "held = [open('/dev/null') for _ in range(1000)]; worked()",
    ),
    Attack(
        "output",
        "prints without end; ended, and only so much is kept",
        "for n in range(3000): print('x' * 10000)\nworked()",
        outcomes=(Outcome.OUTPUT,),
        limits=SMALL,
    ),
    Attack(
        "core",
        "dumps core; no file is left",
        """
soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
os.chdir('tmp')
pid = os.fork()
if pid == 0: os.abort()
if os.WCOREDUMP(os.waitpid(pid, 0)[1]): worked()
""",
    ),
]

FORGED = [
    result(
        "result-link",
        "leaves a link to a file of the user as its result; not followed",
        "os.symlink(plan['folder'] + '/secret', 'out/r'); worked()",
        "text",
    ),
    result(
        "result-link-to-input",
        "leaves a link to a device; not followed",
        "os.symlink('/dev/zero', 'out/r'); worked()",
        "raw",
    ),
    result(
        "result-hard-link",
        "leaves a second name of a private file; refused",
        "os.link(plan['folder'] + '/secret', 'out/r'); worked()",
        "text",
        control="root",  # fs.protected_hardlinks; its owner may, too
    ),
    result(
        "result-folder-link",
        "puts a link in the place of out/; not followed",
        """
open('tmp/r', 'w').write('1')
os.rename('out', 'tmp/old'); os.symlink('tmp', 'out'); worked()
""",
    ),
    result(
        "result-fifo",
        "leaves a FIFO, on which a naive reader waits for ever",
        "os.mkfifo('out/r'); worked()",
    ),
    result("result-folder", "leaves a folder", "os.mkdir('out/r'); worked()"),
    result(
        "result-huge",
        "leaves more JSON than declared",
        "open('out/r', 'w').write('[' + '1,' * 5000 + '1]'); worked()",
    ),
    result(
        "result-hole",
        "leaves a hole of 200 MB",
        "open('out/r', 'w').truncate(200 << 20); worked()",
    ),
    result(
        "result-deep",
        "leaves deep JSON, on which parsers recurse",
        "open('out/r', 'w').write('[' * 400 + ']' * 400); worked()",
    ),
    result("result-nan", "leaves NaN in JSON", "open('out/r', 'w').write('[NaN]'); worked()"),
    result(
        "result-infinite",
        "leaves a number that becomes infinite",
        "open('out/r', 'w').write('[1e999]'); worked()",
    ),
    result(
        "result-pickle",
        "leaves a pickle that runs a program when loaded; nothing runs",
        """
import pickle
class Evil:
    def __reduce__(self): return os.system, (f"touch {plan['folder']}/open/planted",)
open('out/r', 'wb').write(pickle.dumps(Evil())); worked()
""",
        "safetensors",
    ),
    result(
        "result-header",
        "leaves tensors whose header claims more than there is",
        """
head = b'{"w":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
open('out/r', 'wb').write(struct.pack('<Q', len(head)) + head); worked()
""",
        "safetensors",
    ),
    result(
        "result-text",
        "leaves bytes that are no text",
        "open('out/r', 'wb').write(b'\\xff\\xfe'); worked()",
        "text",
    ),
    result(
        "result-missing", "leaves with code 0 before there is any result", "worked(); os._exit(0)"
    ),
    Attack(
        "result-race",
        "lets a daemon rewrite its result while that is collected; the daemon is gone before",
        """
open('out/r', 'w').write('1')
if daemon():
    if os.fork() == 0: mark()
    while True:
        open('out/new', 'w').write('[' * 5000); os.replace('out/new', 'out/r')
""",
        outcomes=(Outcome.OK, Outcome.BAD_RESULT),
        results=(File("r", "json", 1000),),
    ),
    Attack(
        "import-hijack",
        "brings a torch.py and a json.py, hoping that we import them",
        """
import torch, json as other
if 'hijacked' in vars(torch) or 'hijacked' in vars(other): worked()
""",
        inputs={"torch.py": "hijacked = True", "json.py": "from os import *\nhijacked = True"},
        control=None,  # of its own: test_a_naive_import_is_hijacked
    ),
]

ATTACKS = {
    attack.name: attack
    for group in (NETWORK, SECRETS, WRITING, KERNEL, OTHERS, LASTING, HOGS, FORGED)
    for attack in group
}
