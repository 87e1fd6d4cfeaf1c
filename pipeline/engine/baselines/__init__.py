"""Training of R-CNN and SPPnet: stages, of which the extraction of features is a run over shards."""
