"""The JSON schema that holds a judge's reply to its menu, for providers that enforce one.

The verdict is the last field, so that the rule for free text, the last words on the menu count, reads structured
replies as well.
"""

from __future__ import annotations

from typing import Any

from preceptor.judge.models.protocol import Request


def verdict_schema(request: Request) -> dict[str, Any]:
    """An object with `reasoning`, where the judge may reason, and then `verdict`, one of the menu's words."""
    fields: dict[str, Any] = {"reasoning": {"type": "string"}} if request.reasoning else {}
    fields["verdict"] = {"type": "string", "enum": list(request.menu.values())}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
