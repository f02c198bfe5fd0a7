"""The page of a guard: whatever the figures and texts are, it is made, and a text in it is a text."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import pytest

from preceptor.prompts.records import Message, Prompt
from preceptor.prompts.rows import write_rows
from preceptor.report import plots as report_plots
from preceptor.train.evaluation.plots import UNDRAWN, blank, picture, svg
from preceptor.train.guard.page import PAGE, conclude
from preceptor.train.guard.plots import lengths, over_kl, over_steps
from preceptor.train.guard.rules import ABOUT, LOOKS, REPLIES, GuardReply, Look
from preceptor.train.ppo.guard_protocol import Ended

ROOT = Path(__file__).parents[3]
HOSTILE = "\x1b]0;owned\x07[/]<script>alert(1)</script>\u202e$x_$`\"'>{{ 7*7 }}"
ASKED = Prompt(id="p", messages=(Message(role="user", content=HOSTILE),))


def look(step: int, figure: float, gold: float | None = 0.5) -> Look:
    return Look(
        step=step,
        gold=gold,
        gold_ci95=(0.4, 0.6),
        judged=1,
        unjudged=0,
        proxy=figure,
        kl_nats=figure,
        kl_coef=0.1,
        reply_tokens=3.0,
        distinct_1=0.5,
        distinct_2=0.5,
        self_bleu=0.5,
        refused=0.0,
        perplexity=figure,
        spread=figure,
        action="warn",
        said=(HOSTILE,),
    )


def page_of(folder: Path, figure: float) -> str:
    write_rows(folder / LOOKS, [look(0, -figure), look(10, figure), look(20, 0.0, None)])
    write_rows(
        folder / REPLIES,
        [
            GuardReply(step=step, prompt=ASKED, text=HOSTILE, tokens=3, proxy=figure, gold=0.0)
            for step in (0, 10, 20)
        ],
    )
    about = {
        "meaning": HOSTILE,
        "judge": HOSTILE,
        "prompts": 1,
        "rules": {"kl": {"limit": 1, "action": "warn"}},
    }
    (folder / ABOUT).write_text(json.dumps(about))
    stopped = {"step": 10, "reason": HOSTILE, "returned_step": 0}
    found = conclude(folder, Ended(step=10, stopped=stopped))
    assert found is not None
    return (folder / PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize("figure", [1.0, 1e308, 1.7e308, 1e200, 5e-324])
def test_a_training_ends_with_its_page_whatever_was_rewarded(tmp_path: Path, figure: float) -> None:
    page = page_of(tmp_path, figure)
    assert UNDRAWN not in page
    assert page.count("<svg") == 7
    assert ("drawn at the edge" in page) is (figure > 1e100)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page = page_of(tmp_path, 1.0)
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert not {"\x1b", "\x07", "\u202e"} & set(page)
    assert "{{ 7*7 }}" in page
    assert "49" not in page.partition("What the proxy liked")[2].partition("<h2>Rules")[0]


@pytest.mark.parametrize("figure", [math.inf, -math.inf, math.nan, 1e308, -1e308])
def test_no_figure_ends_a_plot(figure: float) -> None:
    looks = [look(0, 1.0), look(1, figure)]
    reply = GuardReply(step=0, prompt=ASKED, text="", tokens=1, proxy=figure)
    rows = [{"round": 0, "kl": 1.0, "step": 1}, {"round": 1, "kl": figure, "step": 2}]
    for drawn in (
        over_kl(looks, 1),
        over_steps(looks, [("perplexity", lambda one: one.perplexity)], 1, None),
        lengths([reply], [reply]),
        report_plots.by_round(rows, "kl", "KL"),
        report_plots.curve(rows, "kl", "KL"),
    ):
        assert drawn.startswith("<svg")
        assert drawn != UNDRAWN


def test_what_cannot_be_drawn_is_said_in_its_place(caplog: pytest.LogCaptureFixture) -> None:
    @picture
    def never() -> str:
        figure, axes = blank(1, 1)
        axes.set_ylim(0, math.nan)
        return svg(figure)

    assert never() == UNDRAWN
    assert "cannot be drawn: ValueError" in caplog.text


def test_every_plot_is_a_picture() -> None:
    found = set()
    for path in (*ROOT.glob("train/**/*.py"), *ROOT.glob("preceptor/report/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and "return svg(figure)" in ast.unparse(node):
                found.add(node.name)
                assert [ast.unparse(one) for one in node.decorator_list] == ["picture"], node.name
    assert {"over_kl", "over_steps", "lengths", "calibration", "shares", "curve", "by_round"} <= found
