"""Pages for people: principles, labels, blind checks, jobs, money and keys in a browser."""
