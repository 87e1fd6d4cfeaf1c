"""Proposals for a manifest."""
