"""Start `python -m MODULE` by a fork of a process that has imported the large libraries, not by a new interpreter.

A rank imports torch, DeepSpeed, MLflow and Lance before its first line. This costs seven seconds of a core, and tests
start hundreds of processes. Inside of `warm_starts`, subprocess.Popen asks a source of processes for a fork instead.

The fork is a child of the caller, as a new process is: it has its own process id, exit status, signals, streams,
environment and working directory. Linux gives an orphan to its nearest ancestor that asked for orphans. So the source
forks twice, its first child ends at once, and the caller adopts the second. Each fork has a source of its own, because
torchrun starts ranks in the same way.

A call that a fork cannot serve alike starts a new interpreter: other options of Python, another variable that a library
reads when it is imported, open files that are passed on. So does every call of a test with the marker
`new_interpreter`, and of a slow test. A fork ends without Python's finalization.
"""

import atexit
import ctypes
import gc
import importlib
import os
import pickle
import re
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT

PR_SET_CHILD_SUBREAPER = 36
LARGEST = 1 << 17  # bytes of a request: arguments and environment
ROOM = 8192  # bytes for the arguments that /proc shows of a fork
# What ranks and steps import. The command line is not among them: it reads its variables when it is imported.
LIBRARIES = [
    "torch.distributed.run",
    "deepspeed",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llava.modeling_llava",
    "transformers.models.idefics2.modeling_idefics2",
    "peft",
    "mlflow",
    "lance",
    "pyarrow.parquet",
    "PIL.Image",
    "kfp.local",
    "components.training.trainer_setup",
]
KFP_STEP = "kfp.dsl.executor_main"
MODULES = re.compile(r"torch\.distributed\.run|kfp\.dsl\.executor_main|(components|pipelines|tests\.helpers)(\.\w+)*")
# These variables may differ between the source and a fork, because they are read when they are needed.
READ_LATE = re.compile(
    "MANTIS_.*|AWS_.*|OPENAI_.*|MLFLOW_(TRACKING_.*|RUN_ID|EXPERIMENT_ID|HTTP_.*)|MASTER_(ADDR|PORT)|"
    "(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE|NAME)|TORCHELASTIC_.*|TORCH_ELASTIC_SHUTDOWN_TIMEOUT|TORCH_(FR|NCCL)_.*|"
    "PYTEST_.*|PYTHONUNBUFFERED|NO_COLOR|COLUMNS|LINES|TERM|TMPDIR|PWD|OLDPWD|SHLVL|_|DS_ACCELERATOR|KUBECONFIG|"
    "_KFP_RUNTIME"
)
# Modules set these variables when they are imported. A test may have imported them before or after it notes a
# process's environment.
SET_BY_IMPORTS = {
    "_MLFLOW_TELEMETRY_SESSION_ID",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_CPP_LOG_LEVEL",  # of components.training.launch.torchrun_in_pod
}
# The source imports its libraries in this environment, which a test may change later.
IMPORTED_IN = dict(os.environb) | {b"OMP_NUM_THREADS": b"1", b"DS_ACCELERATOR": b"cpu"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A process to start; the three streams come as open files beside it."""

    module: str
    arguments: list[str]
    environment: dict[bytes, bytes]
    folder: str
    unbuffered: bool
    own_session: bool
    parent: int  # who adopts it
    first: Callable[[], None] | None  # Popen's preexec_fn


# The caller's side


class Source:
    """The end of a connection to a process that forks on request."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._owner, self._one = connection, os.getpid(), threading.Lock()

    def can_serve(self) -> bool:
        """Whether this process is the one that adopts; a fork that multiprocessing made is not."""
        return os.getpid() == self._owner

    def start(self, request: Request, streams: list[int]) -> int:
        """The id of the new child of this process."""
        adopt = ctypes.CDLL(None).prctl
        with self._one:
            adopt(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._connection, [pickle.dumps(request)], streams)
                answer = self._connection.recv(64)
            finally:
                adopt(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        if not answer:
            raise ChildProcessError("the source of processes has ended")
        return int(answer)

    def close(self) -> None:
        self._connection.close()


def serve_popen_from(source: Source) -> Callable[[], None]:
    """Let subprocess.Popen start what `source` can start. Returns the way back."""
    real = subprocess._fork_exec  # type: ignore[attr-defined]

    def fork_exec(arguments: list[Any], executables: Any, *rest: Any) -> int:
        request = _request(arguments, *rest) if source.can_serve() else None
        streams = [rest[place] if rest[place] >= 0 else own for own, place in enumerate((4, 7, 9))]
        return source.start(request, streams) if request else real(arguments, executables, *rest)

    subprocess._fork_exec = fork_exec  # type: ignore[attr-defined]

    def back() -> None:
        subprocess._fork_exec = real  # type: ignore[attr-defined]

    return back


def _request(arguments: list[Any], *rest: Any) -> Request | None:
    """What Popen asks _fork_exec for, or None if only a new interpreter does the same."""
    close, kept, folder, environment = rest[:4]
    own_session, group, gid, gids, uid, umask, first = rest[13:20]
    options, module, given = _module_of(_without_shell([os.fsdecode(word) for word in arguments]))
    if not (MODULES.fullmatch(module) and close and len(kept) == 1):
        return None
    if (group, gid, gids, uid, umask) != (-1, None, None, None, -1):
        return None
    variables = dict(os.environb) if environment is None else dict(pair.split(b"=", 1) for pair in environment)
    if not _alike(variables) or not _picklable(first):
        return None
    if module == KFP_STEP:
        variables[b"_KFP_RUNTIME"] = b"true"
    return Request(
        module=module,
        arguments=given,
        environment=variables,
        folder=os.fspath(folder or os.getcwd()),
        unbuffered=bool(options) or bool(variables.get(b"PYTHONUNBUFFERED")),
        own_session=bool(own_session),
        parent=os.getpid(),
        first=first,
    )


def _without_shell(words: list[str]) -> list[str]:
    """What the shell script of a step of kfp.local starts, after it has written the step's source into a file."""
    if words[:2] != ["sh", "-ec"] or f"{sys.executable} -m {KFP_STEP}" not in words[2]:
        return words
    source = Path(tempfile.mkdtemp()) / "ephemeral_component.py"
    source.write_text(words[3])
    return [sys.executable, "-m", KFP_STEP, "--component_module_path", str(source), *words[4:]]


def _module_of(words: list[str]) -> tuple[list[str], str, list[str]]:
    """Options of Python, a module and its arguments; no module if the interpreter is to do something else."""
    options = words[1:2] if words[1:2] == ["-u"] else []
    start = len(options) + 1
    if words[0] != sys.executable or words[start : start + 1] != ["-m"] or len(words) < start + 2:
        return [], "", []
    return options, words[start + 1], words[start + 2 :]


def _alike(variables: dict[bytes, bytes]) -> bool:
    """Whether a new interpreter would import the libraries in the same way as the source."""
    return all(name in SET_BY_IMPORTS or READ_LATE.fullmatch(name) for name in _changed(variables))


def _changed(variables: dict[bytes, bytes]) -> set[str]:
    """Names of the variables that differ from those in which the source imports its libraries."""
    names = IMPORTED_IN.keys() | variables.keys()
    return {name.decode() for name in names if IMPORTED_IN.get(name) != variables.get(name)}


def _picklable(first: Callable[[], None] | None) -> bool:
    try:
        pickle.dumps(first)
    except (pickle.PicklingError, AttributeError):
        return False
    return True


_shared: Source | None = None


@contextmanager
def warm_starts() -> Iterator[None]:
    """Let every `python -m` of this project inside of the block be a fork. The source starts at the first use."""
    back = serve_popen_from(_Lazy())
    try:
        yield
    finally:
        back()


class _Lazy(Source):
    """This process's own source, started when a test needs it first and ended with this process."""

    def __init__(self) -> None:
        self._owner = os.getpid()

    def start(self, request: Request, streams: list[int]) -> int:
        global _shared
        if _shared is None or not _shared.can_serve():
            _shared = _start_source()
        return _shared.start(request, streams)


def _start_source() -> Source:
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main({its.fileno()})", " " * ROOM],
            cwd=ROOT,
            env=IMPORTED_IN,
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    source = Source(mine)

    def end() -> None:
        source.close()
        process.wait()

    atexit.register(end)
    return source


# The source's side


def main(descriptor: int) -> None:
    """Fork on request until the caller has ended; in a fork, be the process that was asked for."""
    for library in LIBRARIES:
        importlib.import_module(library)
    changed = _changed(dict(os.environb)) - SET_BY_IMPORTS
    assert not changed, f"an import has set {sorted(changed)}"
    # torchrun notes its caller's name by a search of every module, a second of a core.
    rendezvous = importlib.import_module("torch.distributed.elastic.rendezvous.dynamic_rendezvous")
    vars(rendezvous)["get_method_name"] = lambda depth=2: sys._getframe(depth).f_code.co_name
    mlflow_tables = importlib.import_module("tests.helpers.mlflow_tables")
    mlflow_tables.copy_tables_after_the_first()
    mlflow_tables.create_the_first()
    assert threading.active_count() == 1, "a fork would lose the other threads"
    gc.collect()
    gc.freeze()  # a fork's collector would copy every page that it looks at
    connection = socket.socket(fileno=descriptor)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        request, streams = _serve(connection)
        connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if request.own_session:
            os.setsid()
        if _fork() == 0:  # the source of the new process
            connection.close()
            connection = theirs
            for stream in streams:
                os.close(stream)
            continue
        theirs.close()
        _become(request, streams, connection)
        return


def _serve(connection: socket.socket) -> tuple[Request, list[int]]:
    """Serve requests; it returns in a fork alone."""
    while True:
        data, streams, _, _ = socket.recv_fds(connection, LARGEST, 3)
        if not data:
            os._exit(0)  # who asked has ended
        read, write = os.pipe()
        between = _fork()
        if between == 0:
            here = os.getpid()
            started = _fork()
            if started == 0:
                os.close(read)
                os.close(write)
                connection.close()
                request = pickle.loads(data)
                _until_adopted(request.parent, between=here)
                return request, streams
            os.write(write, str(started).encode())
            os._exit(0)
        os.close(write)
        os.waitpid(between, 0)  # now its child has its new parent
        with suppress(BrokenPipeError):  # who asked has ended; the next read says so
            connection.send(os.read(read, 64))
        os.close(read)
        for stream in streams:
            os.close(stream)


def _fork() -> int:
    with warnings.catch_warnings(action="ignore"):  # Lance warns; its threads start at the first table
        return os.fork()


def _until_adopted(parent: int, *, between: int) -> None:
    """Wait until `between`, which has forked this process, has ended. Then `parent` is its parent, if it lives."""
    while (above := os.getppid()) == between:
        time.sleep(0.001)
    if above != parent:
        os._exit(1)  # the process that asked has ended


def _become(request: Request, streams: list[int], source: socket.socket) -> None:
    """Make this fork what a new interpreter would be, and run the module."""
    for stream, number in zip(streams, range(3), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request.folder)
    os.environb.clear()
    os.environb.update(request.environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ended in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended, signal.SIG_DFL)
    for text, number in ((sys.stdout, 1), (sys.stderr, 2)):
        assert hasattr(text, "reconfigure")
        lines = not request.unbuffered and (number == 2 or os.isatty(number))
        text.reconfigure(line_buffering=lines, write_through=request.unbuffered)
    tempfile.tempdir = None  # TMPDIR may differ
    importlib.import_module("numpy").random.seed()
    sys.path[0] = request.folder
    sys.argv = [request.module, *request.arguments]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    _show_arguments(sys.orig_argv)
    serve_popen_from(Source(source))
    if request.first:
        request.first()
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.modules.pop(request.module, None)
    _leave(_status_of(request.module))


def _status_of(module: str) -> int:
    """Run the module; return the exit status that the interpreter would end with."""
    try:
        runpy._run_module_as_main(module)  # type: ignore[attr-defined]
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        return -signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _leave(status: int) -> None:
    """End as the interpreter does, but free no memory: that would copy every page of the source first."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for text in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads
            text.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _show_arguments(arguments: list[str]) -> None:
    """Let /proc, and with it psutil, show these arguments: the source was started with room for them."""
    begin, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    text = b"\0".join(os.fsencode(word) for word in arguments)[: end - begin - 1]
    ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)
