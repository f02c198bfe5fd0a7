"""llama.cpp's own server out of the wheel `xllamacpp`, with the flags of llama-server that servers.py gives.

    PYTHON benchmarks/llama_server.py --model FILE.gguf --port 8080    # PYTHON: of an environment that has the wheel

Nothing has to be compiled. The wheel is built for every processor of the last ten years, so it is slower than a build
for the one at hand. This file imports nothing of ours, so that its environment needs nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import signal
from importlib.metadata import version
from typing import Any


def main() -> None:
    """Serve until SIGTERM."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--version", action="version", version=f"version: xllamacpp {version('xllamacpp')}")
    flags.add_argument("--model", required=True)
    flags.add_argument("--alias", default="model")
    flags.add_argument("--host", default="127.0.0.1")
    flags.add_argument("--port", type=int, default=8080)
    flags.add_argument("--ctx-size", type=int, default=0, help="tokens of all slots together")
    flags.add_argument("--parallel", type=int, default=1, help="slots")
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--jinja", action="store_true", help="use the model's own chat template")
    asked = flags.parse_args()
    llama: Any = importlib.import_module("xllamacpp")
    params = llama.CommonParams()
    params.model.path = asked.model
    params.model_alias = {asked.alias}
    params.hostnames = [asked.host]
    params.port = asked.port
    params.n_ctx = asked.ctx_size
    params.n_parallel = asked.parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked.threads
    params.use_jinja = asked.jinja
    serving = llama.Server(params)  # in threads of its own, until it is let go of
    signal.pause()
    del serving


if __name__ == "__main__":
    main()
