"""One output folder from its opening to its summary; nothing here imports ray or torch."""
