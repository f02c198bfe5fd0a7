"""The flags of `preceptor train`. Those not given are None, and the settings' own defaults then hold; the ones shown
here are held to them by a test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.train.pair_losses import PAIR_LOSSES

BaseModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="embedded, hf/ID or a model folder.",
        show_default="the base of --adapter, else embedded",
    ),
]
Adapter = Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter to go on from.")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the rows.", show_default="1.0")]
LearningRate = Annotated[
    float | None,
    typer.Option(help="Peak; it rises over the warm-up and falls to zero.", show_default="0.0002"),
]
DpoLearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", help="Peak; it rises over the warm-up and falls.", show_default="5e-05"),
]
BatchSize = Annotated[int | None, typer.Option(help="Rows in a step.", show_default="16")]
MaxLength = Annotated[
    int | None,
    typer.Option(help="Tokens of prompt and reply; the prompt is shortened to fit.", show_default="1024"),
]
Rank = Annotated[int | None, typer.Option(help="Of the LoRA adapter.", show_default="16")]
Alpha = Annotated[float | None, typer.Option(help="LoRA scale is alpha / rank.", show_default="32.0")]
Beta = Annotated[
    float | None, typer.Option(help="Larger keeps the policy closer to its reference.", show_default="0.1")
]
Loss = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(PAIR_LOSSES)}, or a package's own.", show_default="dpo"),
]
LabelSmoothing = Annotated[
    float | None, typer.Option(help="Share of the labels taken to be exchanged.", show_default="0.0")
]
Margin = Annotated[
    float | None,
    typer.Option(
        help="By how much the chosen reply must win, a unit of the row's margin.", show_default="0.0"
    ),
]
Gamma = Annotated[
    float | None, typer.Option(help="With simpo: by how much a chosen reply must win.", show_default="0.5")
]
LengthAlpha = Annotated[
    float | None,
    typer.Option(help="With ld-dpo: weight of tokens beyond the shorter reply.", show_default="0.5"),
]
Anchor = Annotated[
    float | None,
    typer.Option(help="Weight of the chosen reply's own log-likelihood.", show_default="0.0"),
]
Centre = Annotated[
    float | None,
    typer.Option(help="Keeps rewards around zero; 0.01 serves.", show_default="0.0"),
]
Ensemble = Annotated[
    int | None, typer.Option(help="Heads on the one adapter that can disagree.", show_default="1")
]
SpreadPenalty = Annotated[
    float | None,
    typer.Option(help="With --ensemble: share of its spread taken from a reward.", show_default="0.5"),
]
PerPrinciple = Annotated[
    bool, typer.Option("--per-principle", help="A head for each principle, from the judgements about it.")
]
LengthDebias = Annotated[
    bool, typer.Option("--length-debias", help="Take the length direction out of the rewards.")
]
OnTop = Annotated[bool, typer.Option("--on-top", help="Freeze --adapter and train a fresh one on top of it.")]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference-adapter",
        help="Folder of a LoRA adapter to be the reference, or base for the model without any.",
        show_default="what training starts from",
    ),
]
Cache = Annotated[
    Path, typer.Option(help="Folder where the reference's log-probabilities are kept for other runs.")
]
PassTokens = Annotated[
    int | None,
    typer.Option(
        help="Tokens through the model at a time; fewer take less memory.",
        show_default="1024 on a CPU, else 8192",
    ),
]
Attention = Annotated[
    str | None,
    typer.Option(help="sdpa, or flex: FlexAttention, on a GPU alone.", show_default="sdpa"),
]
HeldOut = Annotated[
    float | None, typer.Option(help="Share of the prompts kept for the report card.", show_default="0.1")
]
DpoHeldOut = Annotated[
    float | None,
    typer.Option("--held-out", help="Share of the prompts to measure checkpoints on.", show_default="0.0"),
]
Precision = Annotated[str | None, typer.Option(help="auto, fp32 or bf16.", show_default="auto")]
Checkpointing = Annotated[
    bool | None,
    typer.Option(
        "--gradient-checkpointing/--no-gradient-checkpointing",
        help="Less memory, about a third more time.",
        show_default="where memory would not do without",
    ),
]
PlanOnly = Annotated[
    bool,
    typer.Option("--plan", help="Say what it would take in memory, steps, time and disk, and do nothing."),
]
CheckpointEvery = Annotated[
    int | None, typer.Option(help="Steps from one checkpoint to the next.", show_default="50")
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard files too.")]
Dora = Annotated[bool, typer.Option("--dora", help="DoRA: the adapter's magnitude and direction apart.")]
RsLora = Annotated[bool, typer.Option("--rslora", help="Scale the adapter by alpha / sqrt(rank).")]
FourBit = Annotated[bool, typer.Option("--4bit", help="QLoRA: the base in nf4; CUDA only.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the model with torch.compile.")]
ReportTo = Annotated[
    list[str] | None,
    typer.Option(
        help="wandb, trackio, mlflow, comet_ml or swanlab, once each; its key is in the environment."
    ),
]
KeepCheckpoints = Annotated[
    int | None, typer.Option(help="Last checkpoints kept, beside the best.", show_default="2")
]
Take = Annotated[
    str | None,
    typer.Option(help="last or best: the checkpoint of least held-out loss.", show_default="last"),
]
