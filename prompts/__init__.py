"""Every word that a model reads, and how its reply is read back. Pure text: no model, no network."""
