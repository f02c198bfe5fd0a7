"""Flags that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[
    str, typer.Option("--model", help="provider/model, such as openai/gpt-5-mini, hf/./model or embedded.")
]
Judge = Annotated[
    str, typer.Option("--judge", help="Who judges: provider/model, or `checks` for machine checks alone.")
]
Judges = Annotated[
    list[str],
    typer.Option("--judge", help="Who judges: provider/model, or `checks`. Several form a panel."),
]
Escalate = Annotated[
    list[str] | None,
    typer.Option("--escalate-to", help="A judge for the pairs that --when names; several are further steps."),
]
When = Annotated[
    list[str] | None,
    typer.Option("--when", metavar="EXPR", help="Which pairs go on, over status, probability and margin."),
]
BaseUrls = Annotated[
    list[str] | None,
    typer.Option("--base-url", metavar="[JUDGE=]URL", help="A compatible server, for all judges or for one."),
]
Combine = Annotated[
    Literal["mean", "majority", "dawid-skene"], typer.Option(help="How a panel's votes add up.")
]
ConstitutionName = Annotated[
    str, typer.Option("--constitution", "-c", help="A shipped constitution's name or a YAML file.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result is written.")]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="A compatible server: vLLM, Ollama, llama.cpp, TGI.")
]
Ledger = Annotated[
    str,
    typer.Option(
        "--ledger", envvar="PRECEPTOR_LEDGER", help="The ledger of calls: a file or a database URL."
    ),
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, help="Calls in flight at once.")]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", min=0, help="USD that this command may spend; it stops at the cap."),
]
Rpm = Annotated[
    float | None,
    typer.Option("--rpm", min=0.001, help="Requests a minute, at most; else as the provider says."),
]
Tpm = Annotated[
    float | None,
    typer.Option("--tpm", min=1, help="Tokens a minute, in and out, at most; else as the provider says."),
]
Price = Annotated[
    list[str] | None,
    typer.Option("--price", metavar="[MODEL=]IN,OUT", help="USD for a million tokens: 0.25,2."),
]
Batch = Annotated[
    bool, typer.Option("--batch", help="Ask OpenAI and Anthropic in batches: half the price, within a day.")
]
BatchThenSync = Annotated[
    bool, typer.Option("--batch-then-sync", help="Ask in a batch once, and directly what it did not answer.")
]
Plan = Annotated[bool, typer.Option("--plan", help="Count calls, tokens and dollars; ask nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Seed = Annotated[int, typer.Option("--seed", help="Equal seeds give equal results.")]
Template = Annotated[
    str | None, typer.Option("--template", help="A judge template of your own: a .jinja file.")
]
Principles = Annotated[
    Literal["joint", "each", "sample"],
    typer.Option("--principles", help="joint: all in one ask; each: one ask a principle; sample: one drawn."),
]
Draws = Annotated[
    int, typer.Option("--draws", min=1, help="With `sample`: how many principles are drawn for a pair.")
]
Shots = Annotated[
    int, typer.Option("--shots", min=0, help="Worked examples that each principle brings into an ask.")
]
Clamp = Annotated[
    str | None,
    typer.Option("--clamp", metavar="LOW,HIGH", help="Bounds of probabilities after reasoning: 0.4,0.6."),
]
Structured = Annotated[
    bool, typer.Option("--structured", help="Have the provider hold the answer to a JSON schema.")
]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="Of a local model's weights: float32, bfloat16, float16, auto.")
]
DeviceMap = Annotated[
    str | None, typer.Option("--device-map", help="Where a local model's layers lie: auto spreads them.")
]
FourBit = Annotated[bool, typer.Option("--4bit", help="A local model's weights in four bits; needs CUDA.")]
Recheck = Annotated[
    str | None,
    typer.Option("--recheck", metavar="SHARE", help="Ask again past the ledger, to see drift: 1%."),
]
FailIf = Annotated[
    str | None,
    typer.Option("--fail-if", metavar="EXPR", help="Exit 1 where this holds, such as 'flip_rate > 0.2'."),
]
Reasoning = Annotated[
    bool, typer.Option("--reasoning/--no-reasoning", help="Whether the judge may reason before its verdict.")
]
Tie = Annotated[bool, typer.Option("--tie/--no-tie", help="Whether the judge is offered a tie.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first rows of the file.")]
Format = Annotated[
    str,
    typer.Option(
        "--format", help="rows: by sight; or a layout's name, such as hh (`preceptor convert --help`)."
    ),
]
Truncated = Annotated[
    Literal["keep", "drop"],
    typer.Option("--truncated", help="Whether samples that were cut at their length are judged."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--map", metavar="COLUMN=FIELD", help="A column under another name: prompt=question; repeatable."
    ),
]

Engine = Annotated[
    Literal["local", "ray"], typer.Option(help="local: this process; ray: the workers of a Ray cluster.")
]
Address = Annotated[
    str | None,
    typer.Option(help="With --engine ray: the cluster's address, or `auto`; else Ray is started here."),
]
Gpus = Annotated[
    float | None, typer.Option(min=0, help="With --engine ray: GPUs of each worker; 0.5 shares one.")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="With --engine ray: how many; else one a machine, or as --gpus allows."),
]

LEDGER = ".preceptor/ledger.db"
CONCURRENCY = 16
