"""Errors of reading rows and templates.

UserError (constitution.errors)
  RowsError         a file of rows that cannot be read: missing, broken, empty, of the wrong form
  TemplateError     a template that does not parse, lacks its front matter or names an unknown slot
"""

from __future__ import annotations

from preceptor.constitution.errors import UserError


class RowsError(UserError):
    """Names the file, the line, what came and what was wanted."""


class TemplateError(UserError):
    """Names the template, what is wrong with it, and the slots that there are."""
