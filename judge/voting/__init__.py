"""Several judges: panels, escalation, rankings."""
