"""The one seam to models: a Request goes in, a Completion comes out, whoever answers."""
