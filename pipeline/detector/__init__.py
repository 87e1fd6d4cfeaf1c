"""Fast R-CNN: backbones, the network, loss, RoI sampling, checkpoints, the predictor.

It imports the modules beside the stations and torch, never ray or a station to its right. Drivers and
CPU tasks can import these modules without torch: `architecture`, `preprocessing`, `sampling`, `targets`,
`postprocessing_settings`, `detection_settings`, `pyramid`, `version`, `checkpoint_record` and
`backbones.catalog`. `python -m pipeline.detector IMAGE --checkpoint URI` detects in one image without
Ray; only this command imports `proposals`.
"""
