"""Training: recipes, the order of samples, the training step, the state that resumes it; no Ray here.

May import `detector`, `proposals`, `shards`, `manifest` and the modules beside them; never ray or
`analysis` (validation is a callable that `engine` hands in).
"""
