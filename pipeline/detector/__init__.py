"""Fast R-CNN: backbones, the network, box coding, loss, RoI sampling, checkpoints, the predictor.

May import `errors`, `boxes`, `images`, `storage` and torch; never ray, `proposals` or what stands to
the right. `python -m pipeline.detector PICTURE --checkpoint URI` detects in one picture without Ray.
"""
