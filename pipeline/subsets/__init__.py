"""Manifests made of manifests: split, merged, filtered."""
