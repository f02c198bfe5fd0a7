"""`--nproc` and `--accelerate-config`: the same command in several processes that train together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import typer
from pydantic import Field

from preceptor.cli.stopping import for_children
from preceptor.constitution.errors import UserError
from preceptor.doctor import HOME
from preceptor.prompts.records import Settings


class Launch(Settings):
    """How a training on rows is carried out."""

    plan: bool = False
    """Say what it would take in memory, steps, time and disk, and do nothing."""
    nproc: int = Field(default=1, ge=1)
    """Processes that train together, on GPUs where there are any."""
    accelerate_config: Path | None = None
    """A config file of Accelerate's, for FSDP2, DeepSpeed or several machines."""
    as_json: bool = False
    """One JSON object on stdout."""


FLAGS = ("--nproc", "--accelerate-config")


def launched(launch: Launch) -> bool:
    """Run this very command in several processes and say that it was done; False where it is to be run here.

    Everything that can be wrong with flags and rows is to be found before. Raises UserError, and typer.Exit with
    the code of a process that failed.
    """
    nproc, config = launch.nproc, launch.accelerate_config
    if "RANK" in os.environ or (nproc == 1 and config is None):
        return False
    if config is not None and not config.is_file():
        raise UserError(f"--accelerate-config is {config}; wanted a file that `accelerate config` wrote")
    words = [*_launcher(nproc, config), *_without_ours(sys.argv[1:])]
    environment = {**os.environ}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))
    if Path.cwd() != HOME:  # a checkout that is not installed is found by way of the working directory alone
        # theirs and their children's: a judge.py or train.py of the user's in the working directory is not ours
        environment["PYTHONSAFEPATH"] = "1"
    running = subprocess.Popen(words, env=environment)
    try:
        code = running.wait()
    except KeyboardInterrupt:
        running.send_signal(for_children())
        running.wait()
        raise
    if code:
        raise typer.Exit(code if code > 0 else 1)
    return True


def _launcher(nproc: int, config: Path | None) -> list[str]:
    """Accelerate's launcher; on CPUs torch's own, which it stands on, since for CPUs it knows MPI alone."""
    from preceptor.train.distributed import gpus

    accelerate = [sys.executable, "-m", "accelerate.commands.launch"]
    if config is not None:
        given = ["--num_processes", str(nproc)] if nproc > 1 else []
        return [*accelerate, "--config_file", str(config), *given, "--module", "preceptor"]
    if (there := gpus()) > 0:
        if nproc > there:
            raise UserError(f"--nproc is {nproc}, and there are {there} GPUs: one process each")
        plain = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        return [*accelerate, "--multi_gpu", "--num_processes", str(nproc), *plain, "--module", "preceptor"]
    local = ["--master-addr", "127.0.0.1", "--master-port", str(_free_port())]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(nproc),
        *local,
        "-m",
        "preceptor",
    ]


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _without_ours(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        name, _, value = word.partition("=")
        if skip or name in FLAGS:
            skip = name in FLAGS and not value and not skip
            continue
        kept.append(word)
    return kept
