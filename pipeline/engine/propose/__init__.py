"""Proposals over a manifest: the run, its CPU tasks, and the exchange with other tools' files."""
