"""Fast R-CNN: backbones, the network, box coding, loss, RoI sampling, checkpoints, the predictor.

May import `errors`, `boxes`, `images`, `storage` and torch; never ray or what stands to the right. What
a driver or a CPU task needs is importable without torch: `architecture`, `preprocessing`, `sampling`,
`targets`, `keep`, `pyramid`, `version`, `checkpoint_record`. `python -m pipeline.detector IMAGE
--checkpoint URI` detects in one image without Ray; it alone imports `proposals`.
"""
