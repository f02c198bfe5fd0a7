"""The page of data formats, docs/data-formats.md: every file that is read or written, and the fields of every row.

python -m preceptor.cli.formats > docs/data-formats.md
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType

import preceptor.judge.records
import preceptor.prompts.records
import preceptor.records

HEAD = """\
# Data formats

Written by `make docs` from the rows' own classes; a test holds it to them.

Rows are JSON Lines in UTF-8, one object a line. Fields that are not set are left out. Every row names its parents: one can
walk from a preference to its label, from there to its judgements, and from there to the call in the ledger.

## Files

| file | written by | a line is | read by |
|---|---|---|---|
| prompts (`.jsonl`, `.jsonl.gz`, `.csv`, `.parquet`, a folder of `datasets`, `hub:ID`) | you | `prompt` or `messages`; `id`, `tags` | `respond`, `evaluate`, `train ppo` and its like |
| pairs, in any layout of the field (`preceptor convert --help` names them) | you | a prompt and two replies, or a list of replies | `label`, `audit`, `train reward`, `train dpo` |
| `responses.jsonl`, `2-responses.jsonl` | `respond`, `run` | [Response](#response) | `revise`, `label` |
| `revisions.jsonl`, `3-revisions.jsonl` | `revise`, `run` | [Revision](#revision) | `label`, `train sft` |
| `labels.jsonl`, `4-labels.jsonl` | `label`, `run` | [Label](#label) | `diff`, `ablate` |
| `rankings.jsonl` | `label --groups` | [Ranking](#ranking) | you |
| `preferences.jsonl`, `preferences.parquet`, `5-preferences.jsonl` | `label`, `run` | [Preference](#preference) | `train reward`, `train dpo`, TRL, `datasets` |
| scores (`--out` of `score`) | `score` | [Score](#score) | you |
| `canaries.jsonl` | `label --canaries` | [Label](#label) of a planted attack | the card |
| `card.md` | `label` | the dataset card: where the labels come from and what the judge is worth | people |
| `8-heldout.jsonl` | `run` | [HeldOut](#heldout) | the report |
| `metrics/stages.jsonl` | `run` | [StageRecord](#stagerecord) | `run`, `verify` |
| `metrics.jsonl` of a training | `train`, `run` | one step: losses, figures, seconds | the report, TensorBoard and the like |
| `manifest.json` | every command with a folder, last of all | settings, versions, seeds, counts, hashes, cost | `verify`, the same command again |
| `SHA256SUMS` | every command with a folder, just before the manifest | every file with its hash, as `sha256sum` has it | `verify`, `sha256sum -c` |
| `SHA256SUMS.sig` | `verify --sign` | a signature of it by an SSH key | `verify` |
| `summary.json` | `run` | the figures of the report | you |
| `ledger.db` | every command that asks a model | see [the ledger](ledger.md) | every command that asks a model |

A row that cannot be used is not dropped. It is written with a status that says why, or counted under `set_aside` with its
reason: rows in = rows out + rows set aside.

## Statuses

| status | of a comparison | becomes a preference |
|---|---|---|
| `ok` | the judgements add up to a better reply | yes |
| `tie` | they add up to none, and the judge said so | no |
| `inconsistent` | the orders name different replies | no |
| `refused` | the judge would not answer | no |
| `unparsed` | it answered without a verdict on offer | no |
| `failed` | no answer came | no |

A reply has the statuses `ok`, `refused`, `truncated`, `empty` and `failed`.

## Rows
"""
MODULES: tuple[ModuleType, ...] = (
    preceptor.prompts.records,
    preceptor.judge.records,
    preceptor.records,
)
NOT_ROWS = {"Record", "Settings"}


def page() -> str:
    """The page."""
    return "\n".join([HEAD, *(part for module in MODULES for part in _rows(module))]).rstrip() + "\n"


def _rows(module: ModuleType) -> Iterator[str]:
    """A table for each row class of a module."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef) and node.name not in NOT_ROWS:
            yield f"### {node.name}\n\n{ast.get_docstring(node)}\n\n| field | type | |\n|---|---|---|"
            yield "\n".join(_fields(node)) + "\n"


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """A line for each field: its name, its type as it is written, and the words under it."""
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            words = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                words = " ".join(inspect.cleandoc(str(after.value.value)).split())
            kind = ast.unparse(field.annotation).replace("|", "\\|")
            yield f"| `{field.target.id}` | `{kind}` | {words} |".replace("|  |", "| |")


if __name__ == "__main__":
    sys.stdout.write(page())
