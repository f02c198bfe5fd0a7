"""What is built before anything is labelled: constitutions and prompts, proposed by models and counted."""
