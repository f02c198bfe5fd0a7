"""Critique and revision requests, as the paper on constitutional AI, llm-swarm and LangChain write them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from preceptor.constitution.forms.draft import DraftPrinciple, FoundPrinciples
from preceptor.constitution.principle import Constitution

CRITIQUES = ("critic", "critique", "critique_request", "critiqueRequest", "critic_prompt", "prompt")
REVISIONS = ("revision", "revision_request", "revisionRequest", "revision_prompt", "edit_request")
OPENINGS = ("critique request:", "revision request:")
NEEDS_LESS = "Choose the reply to which this applies less: "


def is_requests(value: Any) -> bool:
    """Whether JSON is a list of requests, under `constitutions` or by itself, or requests by name."""
    return any(True for _ in _pairs(value))


def _pairs(value: Any) -> Iterator[tuple[str, str, str, str]]:
    """Name, critique, revision, and how replies are compared where the file says it."""
    if isinstance(value, Mapping) and "constitutions" in value:
        value = value["constitutions"]
    if isinstance(value, Mapping):
        items = [(str(name), one) for name, one in value.items()]
    elif isinstance(value, list):
        items = [("", one) for one in value]
    else:
        return
    for name, one in items:
        if isinstance(one, Mapping):
            critique, revision = _first(one, CRITIQUES), _first(one, REVISIONS)
            if critique and revision:
                named = str(one.get("name") or one.get("id") or name)
                yield named, critique, revision, _first(one, ("text",)) or f"{NEEDS_LESS}{critique}"


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        if isinstance(fields.get(name), str) and fields[name].strip():
            text: str = fields[name].strip()
            opening = next((one for one in OPENINGS if text.lower().startswith(one)), "")
            return text[len(opening) :].strip()
    return ""


def read_requests(value: Any) -> FoundPrinciples:
    """Where nothing says how replies are compared, it is by the critique's words."""
    drafts = tuple(
        DraftPrinciple(text, id=name, critique=critique, revision=revision, origin=critique)
        for name, critique, revision, text in _pairs(value)
    )
    return FoundPrinciples(drafts, {})


def write_requests(constitution: Constitution) -> tuple[str, dict[str, int]]:
    """llm-swarm's file, with two keys more: name and text."""
    rows = [
        {"name": one.id, "text": one.text, "critic": one.critique, "revision": one.revision}
        for one in constitution.principles
        if one.critique and one.revision
    ]
    lost = len(constitution.principles) - len(rows)
    text = json.dumps({"constitutions": rows}, indent=2, ensure_ascii=False) + "\n"
    return text, {"principles without critique and revision": lost} if lost else {}
