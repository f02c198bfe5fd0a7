"""The service: what the commands do, over HTTP. It makes no number of its own."""
