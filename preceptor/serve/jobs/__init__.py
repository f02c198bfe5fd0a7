"""Jobs of the service: commands that are carried out by processes of their own, and the files that go in and out."""
