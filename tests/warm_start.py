"""Scripts in processes of their own that need not import torch.

Importing torch takes most of the time of a short sweep. One process imports it, and each script
then runs in a fork of that process. The fork imports this project itself, and ends as any script
does. For tests of what a script does; tests of how Python starts run ``python`` itself.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import types
import warnings

# What scripts import. Those of Hugging Face's libraries ask for these as well: MODULES + (name,).
MODULES = ("torch", "hydra._internal.hydra", "rich.console", "sklearn.datasets")


class Process:
    """A script that runs: the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, status):
        self._status = status  # gives the process id, then, when it ended, the return code
        self.pid = int(status.recv(20))
        self.returncode = None

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            self._status.settimeout(None)
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self.returncode = int(self._status.recv(20))
            self._status.close()
        return self.returncode

    def send_signal(self, signum):
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def start(arguments, stdout, stderr, *, cwd=None, env=None, modules=MODULES):
    """Start a script in a fork of a process that has imported the modules.

    Args:
        arguments: Those of ``python``: the script, or ``-c`` and its text, and its own; ``-W`` may
            come first.
        stdout: An open file.
        stderr: An open file.
        cwd: As for ``subprocess.Popen``.
        env: As for ``subprocess.Popen``.
        modules: Which to import, where they are installed.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = dict(os.environ if env is None else env)
    request = json.dumps([str(cwd or os.getcwd()), env, *map(str, arguments)]).encode()
    with theirs:
        files = [stdout.fileno(), stderr.fileno(), theirs.fileno()]
        socket.send_fds(_server(tuple(modules)), [request], files)
    return Process(ours)


def run(arguments, *, timeout=120, **options):
    """Run a script to its end, as ``subprocess.run`` does, with what it printed as text.

    Args:
        arguments: As for :func:`start`.
        timeout: Seconds that it may take.
        options: As for :func:`start`.
    """
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = start(arguments, stdout, stderr, **options)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        texts = []
        for file in stdout, stderr:
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess(arguments, status, *texts)


def checked(arguments, **options):
    """Do the same; the script must succeed."""
    done = run(arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@functools.cache
def _server(modules):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), *modules],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    atexit.register(lambda: (ours.close(), server.wait()))  # it ends when nobody can ask it
    return ours


def serve(requests):
    """Fork for each request; return in the forks alone, with what to run."""
    ended, notify = os.pipe()
    os.set_blocking(notify, False)
    running = {}
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(notify)
    while True:
        ready, _, _ = select.select([requests, ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            while running and (gone := os.waitpid(-1, os.WNOHANG))[0]:
                with running.pop(gone[0]) as status, contextlib.suppress(BrokenPipeError):
                    status.send(str(os.waitstatus_to_exitcode(gone[1])).encode())
        if requests in ready:
            request, files, *_ = socket.recv_fds(requests, 1 << 18, 3)
            if not request:
                sys.exit()
            stdout, stderr, status = files
            pid = os.fork()
            if pid:
                os.close(stdout)
                os.close(stderr)
                running[pid] = socket.socket(fileno=status)
                running[pid].send(str(pid).encode())
                continue
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            for end in (*files, ended, notify):
                os.close(end)
            for other in (requests, *running.values()):
                other.close()
            return json.loads(request)


def prepare(cwd, env, *arguments):
    """Do what ``python`` does with its arguments; return the script's code, and its ``__main__``."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    while arguments[0].startswith("-W"):
        attached, *arguments = arguments
        if attached == "-W":
            attached, *arguments = arguments
        warnings._setoption(attached.removeprefix("-W"))
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    script, *rest = arguments
    if script == "-c":
        text, *rest = rest
        name, folder = "<string>", ""
    else:
        with open(script, "rb") as file:
            text = file.read()
        name, folder, main.__file__ = script, os.path.dirname(os.path.abspath(script)), script
    sys.argv = [script, *rest]
    sys.path[:1] = [folder, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    return compile(text, name, "exec"), vars(main)


if __name__ == "__main__":
    for module in sys.argv[2:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.freeze()  # the forks collect garbage of their own only, which is much quicker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the tests end their scripts
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
    exec(*prepare(*request))
