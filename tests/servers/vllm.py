"""A small real HTTP server that speaks as much of vLLM's protocol as rollouts need, with a real model behind it:

    POST /v1/load_lora_adapter      reads the PEFT folder at lora_path; 400 where there is none, or the name is taken
    POST /v1/completions            prompt as tokens; n replies with token_ids, logprobs, finish_reason
    POST /v1/unload_lora_adapter    404 where nobody has that name

`shift` is added to every log-probability that it tells: other numerics. `faults` lists what befalls the first
completions in turn: a status, or "garbage".
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from preceptor.train.models.adapters import adapt_from
from preceptor.train.models.base import load_base
from preceptor.train.rollout.sampling import Sampling, sample


class VllmServer:
    """What it was asked and what it holds; `url` is where it listens."""

    def __init__(self, model: Path, shift: float, faults: Sequence[str]) -> None:
        self.model = model
        self.shift = shift
        self.faults = list(faults)
        self.loaded: dict[str, Any] = {}
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body of the reply."""
        self.seen.append((path, body))
        if path == "/v1/load_lora_adapter":
            return self._load(body["lora_name"], Path(body["lora_path"]))
        if path == "/v1/unload_lora_adapter":
            if self.loaded.pop(body["lora_name"], None) is None:
                return 404, {"message": "The lora adapter cannot be found."}
            return 200, "Success: LoRA adapter removed successfully."
        if path == "/v1/completions":
            fault = self.faults.pop(0) if self.faults else "ok"
            if fault == "garbage":
                return 200, {"choices": [{"index": 0, "text": "words alone"}]}
            if fault != "ok":
                return int(fault), {"message": "planned"}
            return self._complete(body)
        return 404, {"message": "Not Found"}

    def _load(self, name: str, path: Path) -> tuple[int, Any]:
        if name in self.loaded or not (path / "adapter_config.json").is_file():
            return 400, {"message": f"No adapter found for {path}, or the name is taken."}
        self.loaded[name] = adapt_from(load_base(str(self.model)), path, frozen_reference=False).eval()
        return 200, "Success: LoRA adapter added successfully."

    def _complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["model"] not in self.loaded:
            return 404, {"message": f"The model `{body['model']}` does not exist."}
        how = Sampling(
            body["temperature"], body["top_p"], body["max_tokens"], frozenset(body["stop_token_ids"]), 10**6
        )
        replies = sample(self.loaded[body["model"]], [body["prompt"]], body["n"], how, body["seed"])
        choices = []
        for index, reply in enumerate(replies):
            told = [value + self.shift for value in reply.logprobs.tolist()]
            choices.append(
                {
                    "index": index,
                    "text": "",
                    "finish_reason": "stop" if reply.ended else "length",
                    "stop_reason": reply.reply[-1] if reply.ended else None,
                    "token_ids": reply.reply,
                    "logprobs": {
                        "tokens": [f"token_id:{token}" for token in reply.reply],
                        "token_logprobs": told,
                        "top_logprobs": [{} for _ in told],
                        "text_offset": [0 for _ in told],
                    },
                }
            )
        return 200, {"object": "text_completion", "model": body["model"], "choices": choices}


@contextlib.contextmanager
def serving(model: Path, shift: float = 0.0, faults: Sequence[str] = ()) -> Iterator[VllmServer]:
    """The server on a port of its own."""
    state = VllmServer(model, shift, faults)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """One request."""
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock, torch.no_grad():
                status, said = state.answer(self.path, body)
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
