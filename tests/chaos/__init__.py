"""The jobs under every fault that one machine can provoke, compared with an undisturbed run."""
