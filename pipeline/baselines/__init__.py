"""R-CNN and SPPnet, the two systems that Fast R-CNN is compared with, on the same boxes and backbones.

Both compute features of windows, store them, and train linear SVMs and box regressors on what is stored.
`settings` loads no torch; the other modules do. Runs over shards and stages are in `engine/baselines`.
"""
