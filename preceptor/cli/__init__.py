"""The command line: flags in, one result on stdout, everything for the eye on stderr, the contract's exit codes.

Importing this package imports neither torch nor a provider's SDK: every command imports what it needs when it runs.
"""
