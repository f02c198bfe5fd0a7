"""Labels go to people's tools and come back as gold that `audit` reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preceptor.constitution.errors import UserError
from preceptor.label.costs import read_labels
from preceptor.workbench.people import QUESTION, answers_in, tasks_of
from tests.command_line import Preceptor

RULES = "name: mine\nprinciples:\n  - {id: brief, text: Choose the brief one., check: {max_words: 3}}\n"
SAID = {"p1": ["b", "b", "a"], "p2": ["a", "b"], "p3": []}
GOLD = {"p1": "b", "p2": "tie"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("people")


@pytest.fixture
def labels(folder: Path, monkeypatch: pytest.MonkeyPatch, preceptor: Preceptor) -> Path:
    """Three labels: a winner, a tie, a winner; made once for the module."""
    monkeypatch.chdir(folder)
    if not Path("labels").exists():
        Path("mine.yaml").write_text(RULES)
        rows: list[dict[str, Any]] = [
            {"id": "p1", "prompt": "q 1", "response_a": "so", "response_b": "it is so indeed", "tags": ["x"]},
            {"id": "p2", "prompt": "q 2", "response_a": "yes", "response_b": "no"},
            {
                "id": "p3",
                "messages": [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "r"},
                    {"role": "user", "content": "s"},
                ],
                "response_a": "a b c d e",
                "response_b": "no",
            },
        ]
        Path("pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        made = preceptor("label", "pairs.jsonl", "-c", "mine.yaml", "--judge", "checks", "--out", "labels")
        assert made.code == 0, made.err
    return Path("labels")


def argilla(value: Any) -> Any:
    for row in value:
        row["responses"] = {
            QUESTION: [{"value": one, "user_id": "u", "status": "submitted"} for one in SAID[row["id"]]]
        }
        row["responses"][QUESTION].append({"value": "a", "user_id": "v", "status": "draft"})
    return value


def label_studio(value: Any) -> Any:
    for task in value:
        chosen = [
            {"from_name": QUESTION, "type": "choices", "value": {"choices": [one]}}
            for one in SAID[task["data"]["label"]]
        ]
        task["annotations"] = [{"was_cancelled": False, "result": [one]} for one in chosen]
        task["annotations"].append(
            {"was_cancelled": True, "result": [{"from_name": QUESTION, "value": {"choices": ["a"]}}]}
        )
    return value


def forensics(value: Any) -> Any:
    value["annotators"] |= {f"h{n}": {"name": f"h{n}", "type": "human"} for n in range(3)}
    for row in value["comparisons"]:
        row["annotations"] |= {f"h{n}": {"pref": one} for n, one in enumerate(SAID[row["id"]])}
    return value


@pytest.mark.parametrize(
    ("tool", "answered"),
    [("argilla", argilla), ("label-studio", label_studio), ("feedback-forensics", forensics)],
)
def test_out_to_a_tool_and_back_as_gold(
    labels: Path, preceptor: Preceptor, tool: str, answered: Callable[[Any], Any]
) -> None:
    tasks, gold = Path(f"{tool}.json"), Path(f"{tool}-gold.jsonl")
    ended = preceptor("people", "export", labels, "--to", tool, "--out", tasks, "--show-verdicts", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["pairs"] == 3
    tasks.write_text(json.dumps(answered(json.loads(tasks.read_text()))))
    back = preceptor("people", "import", tasks, labels, "--out", gold, "--json")
    assert back.code == 0, back.err
    found = json.loads(back.out)
    assert (found["tool"], found["pairs"], found["unanswered"], found["disagreed"]) == (tool, 2, 1, 2)
    rows = {row["id"]: row["preferred"] for row in map(json.loads, gold.read_text().splitlines())}
    assert rows == GOLD
    audited = preceptor("audit", gold, "-c", "mine.yaml", "--judge", "checks", "--json")
    assert json.loads(audited.out)["n"] == 2, audited.err


def test_the_judges_word_is_shown_only_where_it_is_wanted(labels: Path) -> None:
    rows = read_labels(labels)
    for tool in ("argilla", "label-studio", "feedback-forensics"):
        assert "checks" not in tasks_of(rows, tool, shown=False)
        assert "checks" in tasks_of(rows, tool, shown=True)
    shown = json.loads(tasks_of(rows, "feedback-forensics", shown=True))
    assert [row["annotations"]["judge"]["pref"] for row in shown["comparisons"]] == ["a", "both", "b"]
    assert shown["comparisons"][2]["prompt"] == "user: q\n\nassistant: r\n\nuser: s"


def test_only_pairs_without_a_winner(labels: Path, preceptor: Preceptor) -> None:
    ended = preceptor("people", "export", labels, "--to", "argilla", "--out", "few.json", "--unsure")
    assert ended.code == 0, ended.err
    assert [row["id"] for row in json.loads(Path("few.json").read_text())] == ["p2"]
    empty = preceptor("people", "import", "few.json", labels, "--out", "none.jsonl")
    assert (empty.code, "holds no answer" in empty.err) == (2, True), empty.err
    assert not Path("none.jsonl").exists()


@pytest.mark.parametrize("value", [{}, [], [1], {"x": {}}, [{"data": 3}], "text"])
def test_a_file_of_no_tool_is_refused(labels: Path, value: Any) -> None:
    Path("other.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match="no export that is known"):
        answers_in(Path("other.json"), read_labels(labels))
