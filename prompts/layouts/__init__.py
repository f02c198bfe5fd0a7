"""Files of pairs as the field writes them, read into the columns of ours, and written."""
