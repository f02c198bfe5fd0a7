"""The application: command line, run folder, report. It connects the packages and decides nothing of theirs."""

__version__ = "0.1.0"
