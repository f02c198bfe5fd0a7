"""Every call: the cache, the bill and the resume."""
