"""Detection under every fault that can be provoked on one machine, held against an undisturbed run."""
