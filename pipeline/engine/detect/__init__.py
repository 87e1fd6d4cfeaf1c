"""Detection over a manifest."""
