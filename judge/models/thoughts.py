"""Thoughts and answer apart, in the text of a reply.

Models that think before they answer mark their thoughts: `<think>…</think>` (DeepSeek, Qwen and most others, with other
words in the tag, or brackets), or the channels of Harmony (gpt-oss). Servers hand these on as text where they are not
told to take them apart. A prompt may open the tag itself, so that the reply holds its end alone; a reply that was cut
off may hold its beginning alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Parted(NamedTuple):
    """The text of a reply."""

    answer: str
    thoughts: str


WORDS = "think|thinking|thought|thoughts|reasoning|seed:think|reflection"
TAG = re.compile(
    rf"(?P<open><(?:{WORDS})>|\[THINK\]|◁think▷)|(?P<close></(?:{WORDS})>|\[/THINK\]|◁/think▷)", re.IGNORECASE
)
MENTIONED = "`\"'“‘«"
"""A tag after one of these is spoken of, and marks nothing."""

CHANNEL = re.compile(
    r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(?P<name>\w+)[^<]*<\|message\|>(?P<text>.*?)"
    r"(?=<\|end\|>|<\|return\|>|<\|call\|>|<\|start\|>|<\|channel\|>|$)(?:<\|(?:end|return|call)\|>)?",
    re.DOTALL,
)
"""A message of Harmony."""
BARE_CHANNELS = re.compile(r"\s*analysis(?P<thoughts>.*?)assistantfinal(?P<answer>.*)", re.DOTALL)
"""The same where the server has thrown the marks away."""
ANSWERING = "final"


def part(text: str) -> Parted:
    """The answer alone, and the thoughts; a text without marks is an answer. Parting an answer again changes nothing.

    Inside thoughts a closing tag ends them. Outside, one that stands at the end of a line, or at its beginning, says
    that all before it was thought. A tag that is never closed makes all after it thoughts.
    """
    if "<|channel|>" in text:
        return _by_channel(text)
    if bare := BARE_CHANNELS.fullmatch(text):
        return Parted(bare["answer"].strip(), bare["thoughts"].strip())
    answer: list[str] = []
    thoughts: list[str] = []
    at, inside = 0, False
    for tag in TAG.finditer(text):
        before, after = text[: tag.start()], text[tag.end() :]
        if before[-1:] and before[-1] in MENTIONED:
            continue
        begins_line = not before.rpartition("\n")[2].strip()
        ends_line = not after.partition("\n")[0].strip()
        if tag["open"] and not inside and begins_line:
            answer.append(text[at : tag.start()])
            at, inside = tag.end(), True
        elif tag["close"] and (inside or begins_line or ends_line):
            if not inside:
                thoughts += answer
                answer = []
            thoughts.append(text[at : tag.start()])
            at, inside = tag.end(), False
    (thoughts if inside else answer).append(text[at:])
    if not thoughts:
        return Parted(text, "")
    return Parted("".join(answer).strip(), "\n\n".join(filter(None, map(str.strip, thoughts))))


def _by_channel(text: str) -> Parted:
    messages = list(CHANNEL.finditer(text))
    lead = text[: messages[0].start()] if messages else ""
    answer = [lead, *(one["text"] for one in messages if one["name"] == ANSWERING)]
    thoughts = [one["text"] for one in messages if one["name"] != ANSWERING]
    if not messages:  # a mark in the middle of a word: cut off, or spoken of
        return Parted(text, "")
    return Parted(*("\n\n".join(filter(None, map(str.strip, parts))) for parts in (answer, thoughts)))
