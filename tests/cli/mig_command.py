"""The command as a user has it: real processes, in a folder of their own, with a time limit.

``Server`` starts processes that are forks of one that has imported everything and touched no device: what runs in them
is ``main`` or ``xsample`` of mig_jax.cli.main with an argv, a working directory, an environment, pipes and an exit code
of its own, four seconds of imports sooner than a new interpreter. ``start`` makes a new interpreter.
"""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LIMIT = 240.0  # seconds; a run here takes a few


@dataclass(frozen=True)
class Done:
    """A finished process."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a user's mistake gives: exit code 2, and nothing else on stderr or stdout."""
        assert self.code == 2, self
        assert self.out == "", self
        assert self.err.startswith("mig-jax: error: ") and self.err.count("\n") == 1, self
        return self.err.removeprefix("mig-jax: error: ").rstrip("\n")


def environment(cache: Path, **more: str) -> dict[str, str]:
    """This process's environment, the cache there, nothing of the devices that a shell may have set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_", "HYDRA_", "PYTEST_"))}
    return kept | {"MIG_JAX_CACHE": str(cache), "COLUMNS": "200", "JAX_PLATFORMS": "cpu"} | more


def start(arguments: list[str], cwd: Path, env: dict[str, str], program: str = "mig-jax") -> subprocess.Popen:
    """The installed command, in a process group of its own."""
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen, limit: float = LIMIT) -> Done:
    """Wait for it; one that hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {limit} s: {process.args}\n{out}\n{err}") from None
    return Done(process.returncode, out, err)


class Job:
    """A process that the server forked."""

    def __init__(self, server: "Server", pid: int, out: Path, err: Path):
        self.server, self.pid, self._out, self._err = server, pid, out, err
        self._done: Done | None = None

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self._done is None:
            code = self.server.ask({"poll": self.pid})
            if code is not None:
                text = [path.read_text(encoding="utf-8") for path in (self._out, self._err)]
                self._done = Done(code, *text)
        return None if self._done is None else self._done.code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; nothing where it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, limit: float = LIMIT) -> Done:
        """Until it ends; one that hangs is killed and fails the test."""
        end = time.monotonic() + limit
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"still running after {limit} s: {self._err.read_text()}")
            time.sleep(0.01)
        assert self._done is not None
        return self._done


class Server:
    """Forks the command."""

    def __init__(self, folder: Path, cache: Path):
        self.folder, self.cache, self.count = folder, cache, 0
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(cache),
        )

    def ask(self, request: dict):
        """One request, one answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(
        self, arguments: list[str], cwd: Path, cache: Path | None = None, program: str = "mig-jax", **env: str
    ) -> Job:
        """``mig-jax``, or another program of the package, with these arguments."""
        self.count += 1
        out, err = self.folder / f"{self.count}.out", self.folder / f"{self.count}.err"
        pid = self.ask(
            {
                "argv": [program, *arguments],
                "cwd": str(cwd),
                "env": environment(cache or self.cache, **env),
                "out": str(out),
                "err": str(err),
            }
        )
        return Job(self, pid, out, err)

    def run(self, arguments: list[str], cwd: Path, cache: Path | None = None, **env: str) -> Done:
        """The same, to its end."""
        return self.start(arguments, cwd, cache, **env).wait()

    def close(self) -> None:
        """End the server."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


def _child(request: dict) -> None:
    """What a new interpreter would have: session, streams, folder, environment, argv."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore Ctrl-C
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        os.dup2(os.open(path, flags, 0o644), number)
    sys.argv = request["argv"]
    from mig_jax.cli import main

    {"mig-jax": main.main, "xsample": main.xsample}[sys.argv[0]]()


def _serve() -> None:
    import importlib

    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for name in (
        "cli.main",
        "cli.commands",
        "cli.sample",
        "cli.terminal",
        "commands.select.run",
        "commands.embed.run",
        "report",
    ):
        importlib.import_module(f"mig_jax.{name}")
    for name in ("hydra", "rich.console", "hydra.core.override_parser.overrides_parser", "huggingface_hub"):
        importlib.import_module(name)
    gc.freeze()  # else the first collection in each child copies all that was imported
    ended: dict[int, int] = {}
    for line in requests:
        request = json.loads(line)
        if "poll" in request:
            pid = request["poll"]
            if pid not in ended and (found := os.waitpid(pid, os.WNOHANG)) != (0, 0):
                ended[pid] = os.waitstatus_to_exitcode(found[1])
            answer = ended.get(pid)
        else:
            answer = os.fork()
            if answer == 0:
                requests.close()
                answers.close()
                return _child(request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
