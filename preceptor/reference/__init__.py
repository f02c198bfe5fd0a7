"""The pages of the documentation that are written from the code: the command line, and the formats of files."""
