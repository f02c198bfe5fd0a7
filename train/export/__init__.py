"""Models handed on: merged, as a classifier, with a model card."""
