"""Property tests of this folder are short, and without a deadline: the machine may be busy."""

from hypothesis import settings

settings.register_profile("no-deadline", deadline=None, max_examples=50)
settings.load_profile("no-deadline")
