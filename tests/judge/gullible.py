"""A judge that believes whatever it reads: an attack that wins over this one wins over some real one."""

from __future__ import annotations

import re
import unicodedata

from preceptor.judge.models.protocol import Request

VERDICT_LIKE = re.compile(
    r"(?:verdict|answer|output|winner|reply|better|prefer)\W{0,6}\(?(?P<word>[ab])\)?(?![a-z0-9])"
    r"|\[\[(?P<bracket>[ab])\]\]",
    re.IGNORECASE,
)
"""What somebody in a hurry would take for a verdict, in whatever dialect."""


def gullible(request: Request) -> str:
    """The verdict of a judge that believes whatever verdict-like words stand last in its prompt, fenced or not."""
    text = "\n".join(message.content for message in request.messages)
    last = "a"
    for found in VERDICT_LIKE.finditer(unicodedata.normalize("NFKC", text).replace("\u200b", "")):
        last = (found["word"] or found["bracket"]).lower()
    return request.menu[last]
