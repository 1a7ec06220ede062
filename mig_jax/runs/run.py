"""One context for the output folder of a run: claim, resume, notes, timings, manifest, publication."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import msgspec
import numpy as np

from mig_jax.core import processes
from mig_jax.core.json_files import jsonable, write_json
from mig_jax.core.locks import Busy
from mig_jax.core.memory import PeakMemory
from mig_jax.core.timing import Stopwatch
from mig_jax.runs.manifest import MANIFEST, REPORT, SCHEMA, Devices, M, Source, file_facts, versions
from mig_jax.runs.out_folder import checked_out, missing_above, remove_empty
from mig_jax.runs.staging import Claim, State, claim, claim_file, join

_STATES: tuple[State, ...] = ("fresh", "resume", "done")
_PATIENCE = 20.0  # seconds until a folder that another process of the group is just making counts as taken


class Run:
    """The output folder of one run, from the check of its path to the publication of its files.

        with Run("runs/a", command, settings, notify=print) as run:
            with run.stage("read pool"):
                ...
            if run.claim(run_key) == "done":
                return run.out
            ...  # state for a resume into run.checkpoint, files into run.files
            run.write_manifest(SelectManifest, inputs=sources_of(pool), n=...)
            run.publish()

    Without ``publish`` (an error, an interrupt), ``out`` stays as it was; what ``checkpoint`` holds stays for the next
    attempt, and folders above ``out`` that the run made and left empty are removed.

    Args:
      out: the folder to write. With ``sample_file`` it is ``FILE.run``.
      command: the command line, ready to run again; for the manifest.
      settings: the resolved configuration, plain; for the manifest.
      name: of the run; by default the folder's.
      sample_file: write the selection to this FILE and everything else into ``FILE.run/``.
      notify: receives each note as the run makes it.

    Raises:
      UserError: ``out`` is a URL, a file, below a file, a mount point, or holds the current folder. Checked at once,
        before the run reads gigabytes.
    """

    def __init__(
        self,
        out: str | Path,
        command: str,
        settings: Mapping[str, Any],
        *,
        name: str | None = None,
        sample_file: str | Path | None = None,
        notify: Callable[[str], None] = lambda text: None,
    ):
        self.timings, self._memory = Stopwatch(), PeakMemory()
        self.shown = str(out if sample_file is None else sample_file)
        self.command, self.settings, self.notify, self.sample_file = command, settings, notify, sample_file
        self.notes: list[str] = []
        self.state: State | None = None
        self.key = ""
        self._claim: Claim | None = None
        self._above: list[Path] = []
        self._folder = str(out) if sample_file is None else f"{sample_file}.run"
        self.name = Path(self._folder).name if name is None else name

    def __enter__(self) -> "Run":
        processes.together(self._check)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._claim is not None:
            self._claim.release()
            remove_empty(self._above)

    def _check(self) -> None:
        if processes.is_main():
            checked_out(self._folder, "out" if self.sample_file is None else "--out FILE.run")

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time a part of the run under ``name``."""
        return self.timings.stage(name)

    def note(self, *texts: str) -> None:
        """Notify of the texts, and keep them for the manifest."""
        for text in texts:
            self.notes.append(text)
            self.notify(text)

    def claim(self, run_key: str, overwrite: bool = False) -> State:
        """Claim the folder for ``run_key``: one process writes; the state is the same on all.

        Returns:
          "fresh"; "resume": ``checkpoint`` is that of an earlier attempt; "done": the folder holds this run, and
          nothing may be written.

        Raises:
          UserError: the folder cannot be written, holds something else, or another process is writing it (``Busy``).
        """

        def begin() -> Claim | None:
            if not processes.is_main():
                return None
            self._above = missing_above(self._folder)
            if self.sample_file is not None:
                return claim_file(self.sample_file, run_key, overwrite)
            return claim(self._folder, run_key, overwrite)

        made = processes.together(begin)
        state = _STATES[int(processes.broadcast(np.int64(_STATES.index(made.state) if made else 0)))]
        return self._begun(made, run_key, state)

    def join(self, run_key: str, overwrite: bool = False, *, process: int, count: int) -> State:
        """Claim the folder for ``count`` processes that fill ``checkpoint`` together; process 0 publishes.

        They may be processes of jax.distributed, or independent ones that share a disk and start at any time. Another
        run's unfinished work is replaced only with ``overwrite``: it may have taken long. "done" may differ between
        processes: one that starts after the run was published finds it done.

        Raises:
          UserError: as ``claim``.
        """
        end = time.monotonic() + _PATIENCE * (count > 1)

        def begin() -> Claim:
            while True:
                try:
                    if process == 0:
                        return claim(self._folder, run_key, overwrite, spare=True)
                    return join(self._folder, run_key, overwrite)
                except Busy:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.05)

        self._above = missing_above(self._folder)
        first = processes.together(lambda: begin() if process == 0 else None)
        made = processes.together(lambda: first or begin())
        return self._begun(made, run_key, made.state)

    def _begun(self, made: Claim | None, run_key: str, state: State) -> State:
        self._claim, self.key, self.state = made, run_key, state
        if made is not None:
            self.note(*made.notes)
        return state

    @property
    def claimed(self) -> Claim:
        """The claim of this process.

        Raises:
          RuntimeError: it has none: ``claim`` was not called, or another process writes.
        """
        if self._claim is None:
            raise RuntimeError("this process has not claimed the output folder")
        return self._claim

    @property
    def writes(self) -> bool:
        """Whether this process has a claim; with ``claim``, one process of several has."""
        return self._claim is not None

    @property
    def out(self) -> Path:
        """The folder, absolute."""
        return self.claimed.out

    @property
    def files(self) -> Path:
        """Where the run writes its files; empty at first. ``publish`` makes it ``out``."""
        return self.claimed.files

    @property
    def checkpoint(self) -> Path:
        """Where the run keeps what a resume needs."""
        return self.claimed.checkpoint

    @property
    def done_already(self) -> str:
        """The note of a run whose state is "done"."""
        return f"{self.shown} holds this very run already; overwrite=true would do it again"

    def write_manifest(
        self,
        kind: type[M],
        *,
        inputs: tuple[Source, ...],
        mesh: jax.sharding.Mesh | None = None,
        packages: tuple[str, ...] = (),
        **section: Any,
    ) -> M:
        """Write manifest.json over the files that ``files`` holds; only the page of the report may follow.

        Args:
          kind: the struct of this kind of run; ``section`` are its own fields.
          inputs: the files that were read.
          mesh: of the devices that computed; None: all devices of all processes.
          packages: those that this kind of run needs beside ``manifest.PACKAGES``, for ``versions``.

        Raises:
          msgspec.ValidationError, TypeError: a value that the struct does not allow (a mistake of the caller).
        """
        with self.stage("write"):
            files = {path.name: file_facts(path) for path in sorted(self.files.iterdir())}
        common = {
            "kind": kind.__struct_config__.tag,
            "schema": SCHEMA,
            "name": self.name,
            "run_key": self.key,
            "command": self.command,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": self.settings,
            "versions": versions(*packages),
            "devices": devices_of(mesh),
            "timings": self.timings.seconds,
            "memory": self._memory.facts(),
            "notes": self.notes,
            "files": files,
            "inputs": inputs,
        }
        manifest = msgspec.convert(jsonable({**common, **section}), kind, str_keys=True)
        write_json(self.files / MANIFEST, msgspec.to_builtins(manifest, str_keys=True))
        return manifest

    def write_report(self, html: str) -> None:
        """Write the page of the report beside the manifest from which it was made."""
        (self.files / REPORT).write_text(html, encoding="utf-8", newline="\n")

    def publish(self) -> None:
        """Let the files appear in ``out``, all at once; see ``Claim.publish``."""
        self.claimed.publish()


def devices_of(mesh: jax.sharding.Mesh | None) -> Devices:
    """The devices of a mesh, or all."""
    devices = jax.devices() if mesh is None else mesh.devices.reshape(-1).tolist()
    return Devices(
        count=len(devices),
        kind=devices[0].device_kind,
        platform=devices[0].platform,
        processes=jax.process_count(),
        mesh=None if mesh is None else dict(mesh.shape),
    )
