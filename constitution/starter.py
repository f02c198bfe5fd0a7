"""The commented file with which a constitution of one's own begins."""

from __future__ import annotations

import re
from pathlib import Path

from preceptor.constitution.edit import write_text
from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import SLUG

_STARTER = """\
# A constitution: the rules by which replies are compared, criticised and repaired.
# Check it with `preceptor constitution lint`; `preceptor constitution checks` lists the machine checks.
name: NAME
version: 1.0.0
description: Say in one line what this constitution is for
# extends: [helpful-harmless]  # shipped names or files beside this one; their principles come first

principles:
  - id: answers-the-question
    # How two replies are compared.
    text: Choose the reply that answers what was asked, in words that its reader knows.
    # How one reply is criticised, and how it is repaired; leave both out for a principle that only compares.
    critique: Say which part of the question the reply leaves open.
    revision: Rewrite the reply so that it answers every part of the question.
    weight: 1.0  # above 0; how much it counts beside the others
    tags: [helpfulness]
    examples:  # shown to the judge, and held against the check by `lint`
      - prompt: Which is longer, a mile or a kilometre?
        better: A mile.
        worse: Both are units of length.
        because: Only the first answers.

  - id: short
    text: Choose the reply of no more than 60 words.
    critique: Quote what the reply could leave out.
    revision: Rewrite the reply in no more than 60 words.
    tags: [concision]
    applies_to: [short]  # only prompts with this tag; without the key, all prompts
    check: {max_words: 60}  # decided by counting, no model is asked
"""


def starter(name: str) -> str:
    """A new file that loads and in which lint finds nothing. UserError for a name that is no slug."""
    if not re.fullmatch(SLUG, name):
        raise UserError(f"the name {name!r}; wanted a-z, 0-9 and single hyphens, as front-desk")
    return _STARTER.replace("NAME", name)


def write_new(name: str, path: Path) -> None:
    """Write the file. UserError for a name that is no slug, and where something is there already or cannot be."""
    text = starter(name)
    if path.exists():
        raise UserError(
            f"{path} is already there; wanted a new file: name another with --out, or remove it first"
        )
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; wanted a folder that is there and writable"
        ) from error
