"""The page of data formats, docs/data-formats.md: every file that is read or written, and the fields of every row.

python -m preceptor.reference.formats > docs/data-formats.md
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

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
| `labels.jsonl`, `4-labels.jsonl` | `label`, `run`, `constitution replay` | [Label](#label) | `diff`, `replay`, `prompts coverage` |
| `rankings.jsonl` | `label --groups` | [Ranking](#ranking) | you |
| `preferences.jsonl`, `preferences.parquet`, `5-preferences.jsonl` | `label`, `run` | [Preference](#preference) | `train reward`, `train dpo`, TRL, `datasets` |
| scores (`--out` of `score`) | `score` | [Score](#score) | you |
| `canaries.jsonl` | `label --canaries` | [Label](#label) of a planted attack | the card |
| `gold.jsonl` | `label --certify` | [Label](#label) of a gold pair | the certificate, `verify` |
| `drift.jsonl` | `drift` | [DriftLook](#driftlook): some labels asked again | the card, `verify` |
| `card.md` | `label` | the dataset card: where the labels come from and what the judge is worth | people |
| `8-heldout.jsonl` | `run` | [HeldOut](#heldout) | the report |
| `metrics/stages.jsonl` | `run` | [StageRecord](#stagerecord) | `run`, `verify` |
| `metrics.jsonl` of a training | `train`, `run` | one step: losses and figures, [as below](#manifests-and-figures) | the report, TensorBoard and the like |
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
| `abstained` | there is a winner, and no certificate stands behind it (`label --certify`) | no |

A reply has the statuses `ok`, `refused`, `truncated`, `empty` and `failed`.

## Rows
"""
ROWS = ("preceptor.prompts.records", "preceptor.judge.records", "preceptor.records")
FIGURES = (
    "preceptor.judge.dataset.manifest",
    "preceptor.judge.figures",
    "preceptor.figures",
    "preceptor.train.loop.manifest",
    "preceptor.train.estimate.plan_figures",
    "preceptor.train.loop.metrics",
    "preceptor.train.export.manifest",
    "preceptor.train.data.counts",
    "preceptor.train.evaluation.reward_figures",
)
"""Modules whose classes the page shows. They are read and not imported: some of them need torch."""
BESIDE = """\
## Manifests and figures

A label folder's `manifest.json` is a [LabelManifest](#labelmanifest), a run's a [RunManifest](#runmanifest), a training's a
[TrainingManifest](#trainingmanifest), an export's an [ExportManifest](#exportmanifest). `verify` holds each to its type.
`summary.json` is a [RunSummary](#runsummary), `report_card.json` [RewardFigures](#rewardfigures). `audit --json` prints
[AuditFigures](#auditfigures), `evaluate --json` [EvaluationFigures](#evaluationfigures). What `--plan` of a training
finds, and its manifest keeps, is a [TrainingPlanFigures](#trainingplanfigures). A row of a training's `metrics.jsonl` is a
[SftMetrics](#sftmetrics), [RewardMetrics](#rewardmetrics), [DpoMetrics](#dpometrics), [KtoMetrics](#ktometrics) or
[GroupMetrics](#groupmetrics), or a [HeldOutMetrics](#heldoutmetrics) between them; of PPO it is `step` beside a
[PpoUpdateFigures](#ppoupdatefigures), [PpoRolloutFigures](#pporolloutfigures) or [PpoStepFigures](#ppostepfigures). A key
whose type is `NotRequired` may be absent.
"""
NOT_ROWS = {"Record", "Settings"}
PLAIN = {"BaseModel", "Record", "NamedTuple", "TypedDict"}
"""Bases that bring no field."""


def page() -> str:
    """The page."""
    rows = [part for name in ROWS for part in _classes(name)]
    figures = [part for name in FIGURES for part in _classes(name)]
    return "\n".join([HEAD, *rows, BESIDE, *figures]).rstrip() + "\n"


def _classes(module: str) -> Iterator[str]:
    """A table for each class of a module, and for each type of an object whose keys are no names."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        match node:
            case ast.ClassDef(name=name) if name not in NOT_ROWS:
                yield _table(name, ast.get_docstring(node) or "", [*_inherited(node), *_fields(node)])
            case ast.Assign(
                value=ast.Call(
                    func=ast.Name(id="TypedDict"), args=[ast.Constant(value=name), ast.Dict(keys, kinds)]
                )
            ):
                fields = [
                    _line(ast.literal_eval(key), kind, "")
                    for key, kind in zip(keys, kinds, strict=True)
                    if key
                ]
                yield _table(str(name), _words(after), fields)


def _table(name: str, words: str, lines: Sequence[str]) -> str:
    return "\n".join([f"### {name}\n\n{words}\n\n| field | type | |\n|---|---|---|", *lines]) + "\n"


def _inherited(node: ast.ClassDef) -> Iterator[str]:
    """A line for each class above that brings fields."""
    for base in map(ast.unparse, node.bases):
        if base not in PLAIN:
            yield f"| all of [{base}](#{base.lower()}) | | |"


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """A line for each field: its name, its type as it is written, and the words under it."""
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            yield _line(field.target.id, field.annotation, _words(after))


def _line(name: str, kind: ast.expr, words: str) -> str:
    shown = ast.unparse(kind).replace("|", "\\|")
    return f"| `{name}` | `{shown}` | {words} |".replace("|  |", "| |")


def _words(node: ast.stmt | None) -> str:
    """Those of a text that stands by itself; none where the node is another."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(inspect.cleandoc(str(node.value.value)).split())
    return ""


if __name__ == "__main__":
    sys.stdout.write(page())
