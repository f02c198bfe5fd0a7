"""The workbench's pages show what jobs have found, escaped, and only the visitor's own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from xml.etree import ElementTree

import pytest

from preceptor.serve.jobs.store import JobStore, Work
from tests.preceptor.serve.pages.conftest import Site
from tests.preceptor.serve.pages.corpus import evil
from tests.preceptor.serve.pages.page_reader import assert_nothing_was_born

FIGURES = {"executor": "each", "n": 4, "right": 1, "undecided": 1, "share": 0.25, "ci95": [0.05, 0.7]}
BETTER = FIGURES | {"right": 3, "share": 0.75}
CELL = {"tag": "lift", "principle": "short", "prompts": 7, "judged": 5, "told_apart": 0, "decided": None}
FOUND: Mapping[str, Any] = {
    "coverage": {
        "constitution": "own@1",
        "prompts": 7,
        "labels": 5,
        "foreign": 0,
        "cells": [CELL | {"rejected_refusals": 2, "tag": evil("cell-tag")}],
        "empty": [["*", "polite"]],
        "all_tie": [["lift", "short"]],
    },
    "amend": {
        "held_out": 4,
        "before": FIGURES,
        "after": BETTER,
        "put_right": ["p1", "p2"],
        "put_wrong": [],
        "changes": [
            {
                "change": "reword",
                "id": "short",
                "text": evil("wording"),
                "proposed": 2,
                "put_right": ["p3"],
                "put_wrong": [],
            }
        ],
        "diff": f"--- own.yaml\n+++ own.yaml (proposed)\n+    text: {evil('diff')}",
    },
    "induce": {"held_out": 4, "executors": [FIGURES, BETTER | {"executor": "joint"}]},
    "dedupe": {"prompts": 3, "kept": 2, "cells": [], "files": [{"file": evil("file")}]},
    "tune": {
        "principle": "short",
        "wordings": [{"text": "Choose.", "original": True, "learn": FIGURES, "held_out": BETTER, "flips": 3}],
        "diff": "",
    },
}
SEEN = {
    "coverage": ("in-cell-tag", "Without a prompt", "short with lift", "polite"),
    "amend": ("in-wording", "in-diff", "Put right: p1, p2. Put wrong: –.", "25%", "75%", "5% to 70%"),
    "induce": ("Reconstruction of 4 held-out pairs", "joint", "75%"),
    "dedupe": ("All figures", "in-file"),
    "tune": ("Wordings of short", "(the file's own)", "Choose."),
}


def add(site: Site, kind: str, result: Mapping[str, Any]) -> str:
    """The id of such a job, which has ended before any worker sees it."""
    folder = site.server.folder
    store = JobStore(f"sqlite:///{folder / 'here.db'}", folder / "preceptor-serve")
    try:
        name = f"job-{kind}"
        if store.job(name) is None:
            store.add_job("", "job", kind, {"kind": kind}, Work((kind,), {}, {}, ""), name, "not begun: x")
    finally:
        store.close()
    with closing(sqlite3.connect(folder / "here.db", timeout=600)) as connection, connection:
        connection.execute(
            "UPDATE service_jobs SET status = 'succeeded', problem = NULL, result = ? WHERE id = ?",
            (json.dumps(result), name),
        )
    return name


@pytest.mark.parametrize("kind", FOUND)
def test_what_a_job_found_is_shown(site: Site, kind: str) -> None:
    name = add(site, kind, FOUND[kind])
    answer = site.get(f"/workbench/{name}")
    assert answer.status_code == 200
    page = assert_nothing_was_born(answer.text)
    for words in SEEN[kind]:
        assert words in page.text, words
    assert f"/workbench/{name}" in site.get("/workbench").text
    assert (f"/workbench/{name}" in site.get(f"/jobs/{name}").text) == (kind != "dedupe")


def test_coverage_is_a_picture_too(site: Site) -> None:
    name = add(site, "coverage", FOUND["coverage"])
    answer = site.get(f"/workbench/{name}/coverage.svg")
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert answer.text.startswith("<svg")
    assert "script" not in {one.tag.rpartition("}")[2] for one in ElementTree.fromstring(answer.text).iter()}
    assert site.get(f"/workbench/{site.job}/coverage.svg").status_code == 404


def test_a_job_of_another_kind_is_not_shown_here(site: Site) -> None:
    assert site.get(f"/workbench/{site.job}").status_code == 404
    assert site.get("/workbench/job-nothing").status_code == 404
