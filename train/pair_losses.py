"""The losses of DPO on preference pairs, an entry of one table each. Outsiders bring their own by an entry point.

An entry says everything that a loss is: what of a reply's log-probability it looks at, what it makes of the gap between
the two replies, which options it reads, whether it has a reference. Settings, training, plan and command line go by it.

    [project.entry-points."preceptor.losses"]
    mine = "my_package:MINE"                 # a PairLoss; `--loss mine` then takes it

This module imports neither torch nor pydantic, so that settings and command lines can be read without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from preceptor.constitution.added import REMEDY, loaded, named
from preceptor.constitution.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from preceptor.train.forward.reply_logprobs import ReplyLogprobs

GROUP = "preceptor.losses"
"""The entry-point group of losses that other packages bring."""

Options = Mapping[str, Any]
"""`beta`, and those of the entry's own options; `margin` as a tensor (B,), by how much each pair must be won."""


class PairLoss(NamedTuple):
    """One loss, as an entry of the table."""

    name: str
    score: Callable[[ReplyLogprobs, Options], Tensor]
    """What of each reply's log-probability the loss looks at, (2B,) in nats."""
    loss: Callable[[Tensor, Options], Tensor]
    """(B,) of the gap (B,): the score of the better reply less that of the worse one, each less the reference's where
    there is a reference. The judge's probability is brought in around it (`train.losses.expected`)."""
    options: frozenset[str] = frozenset()
    """Fields of DpoSettings that it reads beside `beta`: of READ_BY_SOME, and `label_smoothing` where the loss deals
    with exchanged labels itself; elsewhere the labels are smoothed for it."""
    needs_reference: bool = True
    geometric: bool = False
    """Whether the judge's probability p scales the gap by 2 p - 1 instead (`train.losses.geometric`)."""


READ_BY_SOME = ("margin", "gamma", "length_alpha")
"""Options that a loss may read or not; what it does not read is refused."""


def pair_loss(name: str) -> PairLoss:
    """The entry of this name, of the table or brought by another package. Raises KeyError where there is
    none, UserError where another package's cannot be loaded."""
    if name in PAIR_LOSSES:
        return PAIR_LOSSES[name]
    for found in entry_points(group=GROUP, name=name):
        said = named("loss", found)
        entry = loaded(found, said)
        if not isinstance(entry, PairLoss):
            raise UserError(f"{said} is a {type(entry).__name__}; wanted a PairLoss: {REMEDY}")
        return entry
    raise KeyError(name)


def loss_names() -> tuple[str, ...]:
    """All that `pair_loss` knows; those of other packages last."""
    return (*PAIR_LOSSES, *sorted({found.name for found in entry_points(group=GROUP)} - set(PAIR_LOSSES)))


def _whole(logps: ReplyLogprobs, _: Options) -> Tensor:
    return logps.total


def _per_token(logps: ReplyLogprobs, _: Options) -> Tensor:
    from preceptor.train.losses import per_token

    return per_token(logps.total, logps.lengths)


def _length_weighted(logps: ReplyLogprobs, options: Options) -> Tensor:
    from preceptor.train.losses import length_weighted

    return length_weighted(logps.total, logps.common, options["length_alpha"])


def _logistic(gap: Tensor, options: Options) -> Tensor:
    from torch.nn.functional import logsigmoid

    return -logsigmoid(options["beta"] * gap - options["margin"])


def _logistic_alone(gap: Tensor, options: Options) -> Tensor:
    from torch.nn.functional import logsigmoid

    return -logsigmoid(options["beta"] * gap)


def _target_margin(gap: Tensor, options: Options) -> Tensor:
    from torch.nn.functional import logsigmoid

    return -logsigmoid(options["beta"] * gap - options["gamma"])


def _hinge(gap: Tensor, options: Options) -> Tensor:
    from preceptor.train.losses import hinge

    return hinge(options["beta"] * gap - options["margin"])


def _robust(gap: Tensor, options: Options) -> Tensor:
    from preceptor.train.losses import robust

    return robust(options["beta"] * gap - options["margin"], options["label_smoothing"])


def _ipo(gap: Tensor, options: Options) -> Tensor:
    from preceptor.train.losses import ipo

    return ipo(gap, options["beta"])


MARGIN = frozenset({"margin"})
PAIR_LOSSES: Mapping[str, PairLoss] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            PairLoss("dpo", _whole, _logistic, MARGIN),
            PairLoss("ipo", _per_token, _ipo),
            PairLoss("hinge", _whole, _hinge, MARGIN),
            PairLoss("robust", _whole, _robust, MARGIN | {"label_smoothing"}),
            PairLoss("simpo", _per_token, _target_margin, frozenset({"gamma"}), needs_reference=False),
            PairLoss("dpo-norm", _per_token, _logistic, MARGIN),
            PairLoss("ld-dpo", _length_weighted, _logistic, MARGIN | {"length_alpha"}),
            PairLoss("geometric", _whole, _logistic_alone, geometric=True),
        )
    }
)
"""Papers: `train.dpo`; formulas: `train.losses`."""
