"""Personal data that a machine can recognise: e-mail addresses, telephone numbers, payment cards."""

from __future__ import annotations

import re

KINDS = ("email", "phone", "card")
PHONE_REGION = "US"
"""Whose national form a telephone number may have; numbers with `+` and a country code are found
everywhere."""

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@-])")
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)")


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def found(text: str, kind: str) -> tuple[str, ...]:
    """Everything of this kind in the text, as it stands there."""
    if kind == "email":
        return tuple(_EMAIL.findall(text))
    if kind == "card":
        return tuple(match.group() for match in _CARD.finditer(text) if _is_card(match.group()))
    return _phones(text)


def _is_card(run: str) -> bool:
    digits = re.sub(r"\D", "", run)
    return len(set(digits)) > 1 and luhn(digits)


def _phones(text: str) -> tuple[str, ...]:
    import phonenumbers

    matches = phonenumbers.PhoneNumberMatcher(text, PHONE_REGION, leniency=phonenumbers.Leniency.VALID)
    return tuple(match.raw_string for match in matches)
