"""Asks models and turns their replies into feedback: responses, critiques, revisions, judgements, labels."""
