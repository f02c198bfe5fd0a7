"""The same questions in another form -> how often the verdict follows the form.

What a judge is asked has an order and words that mean nothing: which verdict is listed first, which principle, and how
a verdict is spelled. Judges follow them all the same (arXiv 2602.02219 for options and criteria of rubrics), as they
follow the order of the replies. Each is changed alone, everything else stays, and winners are compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.judge.aggregate import winner
from preceptor.judge.figures import PerturbedFigures
from preceptor.judge.records import Label
from preceptor.judge.settings import LabelSettings, Perturbation
from preceptor.judge.statistics import Interval, newcombe, phi, wilson
from preceptor.judge.voting.cascade import Judge, Step
from preceptor.prompts.template import Template

OTHER_NAMES = ("Choice", "Answer")
"""What a verdict's line begins with instead; the second where the template's own has the first."""


def _reversed_menu(template: Template) -> Template:
    return replace(template, menu=dict(reversed(list(template.menu.items()))))


def _other_words(template: Template) -> Template:
    """`Verdict: A` becomes `Choice: A`."""
    name = next(
        one for one in OTHER_NAMES if not all(words.startswith(one) for words in template.menu.values())
    )
    worded = {
        letter: f"{name}: {words.rpartition(':')[2].strip() or words}"
        for letter, words in template.menu.items()
    }
    return replace(template, menu=worded)


CHANGES: Mapping[Perturbation, Callable[[Template], Template] | None] = MappingProxyType(
    {"options": _reversed_menu, "principles": None, "words": _other_words}
)
"""What becomes of a judge's template; None: it is the constitution that changes."""


def perturbed_steps(steps: Sequence[Step], kind: Perturbation) -> tuple[Step, ...]:
    """The judges, who are asked by changed templates."""
    change = CHANGES[kind]
    if change is None:
        return tuple(steps)
    return tuple(
        step._replace(
            judges=tuple(
                Judge(judge.model, change(judge.template) if judge.template else None)
                for judge in step.judges
            )
        )
        for step in steps
    )


def perturbed_constitution(constitution: Constitution, kind: Perturbation) -> Constitution:
    """The constitution, with its principles from the last to the first where that is the change."""
    if kind != "principles":
        return constitution
    return constitution.model_copy(update={"principles": constitution.principles[::-1]})


def require_perturbable(
    kinds: Sequence[Perturbation], constitution: Constitution, settings: LabelSettings, steps: Sequence[Step]
) -> None:
    """Raises UserError for a change that no ask would show."""
    asked = [one for one in constitution.principles if not one.check]
    if "principles" in kinds and (settings.principles != "joint" or len(asked) < 2):
        raise UserError(
            "--perturb principles changes the order of principles in one ask; it needs --principles joint and a "
            "constitution with several that no machine check decides"
        )
    for judge in (judge for step in steps for judge in step.judges):
        template = judge.template
        if template is not None and "menu" not in template.uses and {"options", "words"} & set(kinds):
            raise UserError(
                f"{template.name} writes its verdicts down itself, so that --perturb cannot change them; have it list "
                "`menu`, or leave options and words out"
            )
    if all(judge.template is None for step in steps for judge in step.judges):
        raise UserError("--perturb changes what a model is asked, and nobody but machine checks judges here")


def perturbation(first: Sequence[Label], again: Sequence[Label]) -> PerturbedFigures:
    """How often the winner is another in the changed form, of pairs with a winner in both, and what that does to the
    agreement with gold."""
    later = {label.id: label for label in again}
    both = [(one, later[one.id]) for one in first if one.id in later]
    named = [
        (winner(one.probability), winner(other.probability))
        for one, other in both
        if one.probability is not None and other.probability is not None
    ]
    flips = sum(one != other for one, other in named)
    known = [(_right(one), _right(other)) for one, other in both if one.preferred]
    before, after = [one for one, _ in known], [other for _, other in known]
    gap = newcombe(_share(before), _share(after), phi(before, after)) if before else None
    low_high = wilson(flips, len(named))
    return {
        "n": len(named),
        "flip_rate": flips / len(named) if named else None,
        "ci95": [low_high.low, low_high.high] if named else None,
        "unparsed": sum(other.probability is None and one.probability is not None for one, other in both),
        "accuracy": sum(after) / len(after) if after else None,
        "accuracy_change": gap.by if gap else None,
        "accuracy_change_ci95": [gap.low, gap.high] if gap else None,
    }


def _right(label: Label) -> bool:
    return label.probability is not None and winner(label.probability) == label.preferred


def _share(right: Sequence[bool]) -> Interval:
    return wilson(sum(right), len(right))
