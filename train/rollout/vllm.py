"""Replies of a policy drawn by a vLLM server, which is handed the policy's adapter anew in every step.

The server computes with other kernels, and perhaps in another precision, than the training does. Its own
log-probabilities would put that difference into PPO's ratio, so they are only measured against ours: the ratio is
between two passes of the policy here, and begins at 1. What is left is that replies come from a distribution as
far from the policy's as the measured gap.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from preceptor.train.models.adapters import STACKED, save_adapter, save_part
from preceptor.train.rollout.sampling import Sampling
from preceptor.train.rollout.vllm_client import Drawn, Draws, draw

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTERS = "rollouts"
"""In the output folder, while replies are drawn; the server must be able to read it."""


def draw_served(
    model: PeftModel,
    prompts: Sequence[list[int]],
    samples: int,
    how: Sampling,
    seed: int,
    server: str,
    folder: Path,
) -> list[Drawn]:
    """`samples` replies to each prompt, in the order of the prompts, drawn at `server` by the model's POLICY.

    Equal seeds give equal replies as far as the server does. Raises ProviderStopped and UserError as
    `train.rollout.vllm_client.draw` does.
    """
    place = folder / ADAPTERS
    place.mkdir(parents=True, exist_ok=True)
    adapter = Path(tempfile.mkdtemp(prefix="policy-", dir=place))  # its name is no other training's
    try:
        adapter.chmod(0o755)  # the server may run as somebody else
        (save_adapter if STACKED in model.peft_config else save_part)(model, adapter)
        asked = Draws(samples, how.max_new_tokens, how.temperature, how.top_p, sorted(how.stops))
        seeds = [(seed + number) % 2**31 for number in range(len(prompts))]
        found = asyncio.run(draw(server, adapter.name, str(adapter.absolute()), prompts, asked, seeds))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return [reply for replies in found for reply in replies]
