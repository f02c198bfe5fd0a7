"""The local judge, eight principles, both orders: one pass for all of a pair's questions against one prompt for each.

    python benchmarks/local_judge.py [--distilabel PYTHON]     # about two minutes on two cores

All sides get the same random Llama, the same pairs of hh-rlhf, the same rendered prompts and float32, each in a process
of its own, one after the other:

    ours          judge.models.local.model.LocalModel, as `preceptor label --judge hf/...` asks it
    padded        plain transformers: every question a prompt of its own, sorted by length, padded on the left, as many
                  tokens in a batch as ours, one forward pass, the last logits only
    distilabel    distilabel's TransformersLLM, generating its shortest answer, batches of 8; PYTHON is the interpreter
                  of an environment with `distilabel[hf-transformers]` and transformers 4, which it needs

The clock runs from the first question to the last answer; loading, and the self-test that a model takes once, are not
counted. The verdicts of the first two are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROWS = HERE / "data" / "hh-rlhf" / "pairs.jsonl.gz"
PRINCIPLES = 8
BATCH_TOKENS = 16384


def questions(pairs: int, model: Path) -> list[Any]:
    """Requests about the first pairs by the first principles of `helpful-harmless`, in both orders."""
    from itertools import islice

    from preceptor.constitution.files import load
    from preceptor.judge.label import label, template_for
    from preceptor.judge.models.registry import open_model
    from preceptor.judge.pairs import read_pairs
    from preceptor.judge.settings import LabelSettings

    rules = load("helpful-harmless")
    some = tuple(p.model_copy(update={"applies_to": ()}) for p in rules.principles if not p.check)[
        :PRINCIPLES
    ]
    rules = rules.model_copy(update={"principles": some})
    judge, settings = open_model(f"hf/{model}"), LabelSettings(principles="each")
    template = template_for(judge, settings)
    return [
        request
        for pair in islice(read_pairs(ROWS, "hh"), pairs)
        for request in next(label(pair, rules, judge, template, settings), ())
    ]


class Clock:
    """Seconds since it was made, by the wall and by the processor, which other work on the machine does not slow."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self._wall, "cpu_s": time.process_time() - self._cpu}


def ours(folder: Path, pairs: int) -> dict[str, Any]:
    """Through the model's own queue, as the fan-out asks."""
    import asyncio

    from preceptor.judge.models.registry import open_model

    asked = questions(pairs, folder / "model")
    model = open_model(f"hf/{folder / 'model'}")

    async def run() -> tuple[dict[str, float], list[Any]]:
        # loads the model, and lets it find out once whether it takes the mask
        await asyncio.gather(*(model.complete(request) for request in asked[: 2 * PRINCIPLES]))
        clock = Clock()
        found = await asyncio.gather(*(model.complete(request) for request in asked))
        return clock.read(), found

    took, found = asyncio.run(run())
    return {**took, "n": len(asked), "p_a": [one.probabilities["a"] for one in found]}


def padded(folder: Path, pairs: int) -> dict[str, Any]:
    """The same questions as separate padded prompts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked = questions(pairs, folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model", padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    letters = [tokenizer(f"Verdict: {letter}", add_special_tokens=False)["input_ids"] for letter in "AB"]
    clock = Clock()
    texts = [
        tokenizer.apply_chat_template(
            [message.model_dump() for message in request.messages], tokenize=False, add_generation_prompt=True
        )
        for request in asked
    ]
    rows = [tokens + letters[0][:-1] for tokens in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    found: dict[int, float] = {}
    while order:
        size = max(1, BATCH_TOKENS // len(rows[order[0]]))
        batch, order = order[:size], order[size:]
        inputs = tokenizer.pad({"input_ids": [rows[i] for i in batch]}, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
        shares = logits[:, [tokens[-1] for tokens in letters]].softmax(-1)[:, 0].tolist()
        found |= dict(zip(batch, shares, strict=True))
    return {
        **clock.read(),
        "n": len(asked),
        "p_a": [found[i] for i in range(len(asked))],
        "tokens": sum(map(len, rows)),
    }


def distilabel(folder: Path) -> dict[str, Any]:
    """distilabel's own model class on the prompts that the parent has written; runs in its own environment."""
    from distilabel.models.llms import TransformersLLM

    asked = json.loads((folder / "prompts.json").read_text())
    llm = TransformersLLM(model=str(folder / "model"), generation_kwargs={"max_new_tokens": 1})
    llm.load()
    llm.generate(inputs=asked[:1], max_new_tokens=1)
    clock = Clock()
    for start in range(0, len(asked), 8):
        llm.generate(inputs=asked[start : start + 8], max_new_tokens=1)
    return {**clock.read(), "n": len(asked)}


def run(side: str, folder: Path, pairs: int, python: str, threads: int) -> dict[str, Any]:
    """One side in a process of its own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TQDM_DISABLE": "1",
    }
    if side != "distilabel":
        environment["PYTHONPATH"] = os.getcwd()
    call = [python, __file__, "child", side, str(folder), str(pairs)]
    ended = subprocess.run(call, capture_output=True, text=True, check=False, env=environment)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    sys.stderr.write(f"{side}: {found['n'] / found['seconds']:.1f} questions/s\n")
    return found


def compare(pairs: int, distilabel_python: str | None, width: int, layers: int, threads: int) -> str:
    """The table."""
    from train_pairs import make_model

    folder = Path(tempfile.mkdtemp(prefix="local_judge-"))
    make_model(folder / "model", width, layers)
    config = folder / "model" / "tokenizer_config.json"  # transformers 4 knows the class by its older name
    values = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    config.write_text(json.dumps(values))
    asked = questions(pairs, folder / "model")
    prompts = [[message.model_dump() for message in request.messages] for request in asked]
    (folder / "prompts.json").write_text(json.dumps(prompts))
    found = {side: run(side, folder, pairs, sys.executable, threads) for side in ("padded", "ours")}
    if distilabel_python:
        found["distilabel"] = run("distilabel", folder, pairs, distilabel_python, threads)
    apart = max(abs(a - b) for a, b in zip(found["ours"]["p_a"], found["padded"]["p_a"], strict=True))
    base = found["ours"]
    lines = [
        f"{pairs} pairs, {PRINCIPLES} principles, both orders: {len(asked)} questions, "
        f"{found['padded']['tokens']:,} tokens as prompts of their own. Llama {layers} x {width}, random weights, "
        f"float32, {threads} threads. Largest difference of P(A) between the first two: {apart:.1e}.",
        "",
        "| | questions/s | its time, by the clock on the wall | its processor time |",
        "|---|---:|---:|---:|",
        *(
            f"| {side} | {one['n'] / one['seconds']:.1f} | {one['seconds'] / base['seconds']:.2f} x ours |"
            f" {one['cpu_s'] / base['cpu_s']:.2f} x ours |"
            for side, one in found.items()
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table; `child` is one run."""
    if sys.argv[1:2] == ["child"]:
        side, folder, pairs = sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
        result = (
            distilabel(folder)
            if side == "distilabel"
            else {"ours": ours, "padded": padded}[side](folder, pairs)
        )
        sys.stdout.write(f"{json.dumps(result)}\n")
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=24, help="of hh-rlhf")
    parser.add_argument("--distilabel", help="an interpreter that has distilabel")
    parser.add_argument("--width", type=int, default=512, help="of the model; heads are 32 wide")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    table = compare(options.pairs, options.distilabel, options.width, options.layers, options.threads)
    sys.stdout.write(f"{table}\n")


if __name__ == "__main__":
    main()
