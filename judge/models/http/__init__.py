"""What the providers over HTTP share: transport, faults, the schema of a verdict."""
