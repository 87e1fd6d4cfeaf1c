"""Pyramid bins, by hand."""

from __future__ import annotations

import torch

from pipeline.baselines.spatial_pyramid import count_cells, pool_pyramid


def test_levels_follow_each_other_and_each_is_a_grid_of_maxima() -> None:
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    rois = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
    pooled = pool_pyramid(features, rois, (4, 2, 1), spatial_scale=1.0)
    assert pooled.tolist() == [[*range(16), 5, 7, 13, 15, 15]]


def test_channels_come_before_cells_in_each_level() -> None:
    features = torch.stack([torch.arange(4.0), 10 + torch.arange(4.0)]).reshape(1, 2, 2, 2)
    rois = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]])
    assert pool_pyramid(features, rois, (2, 1), 1.0).tolist() == [
        [0, 1, 2, 3, 10, 11, 12, 13, 3, 13]
    ]


def test_a_window_pools_its_own_part_of_the_map() -> None:
    features = torch.arange(64.0).reshape(1, 1, 8, 8)
    # The last pixels, 23 and 31, round to the cells 6 and 8: columns 2 to 6, rows 4 to 8, of which the map
    # has 4 to 7. Both halves have the middle cell.
    rois = torch.tensor([[0.0, 8.0, 16.0, 24.0, 32.0]])
    pooled = pool_pyramid(features, rois, (2, 1), 0.25)
    assert pooled.tolist() == [[52, 54, 60, 62, 62]]


def test_the_pyramid_of_the_paper_has_50_cells() -> None:
    assert count_cells((6, 3, 2, 1)) == 50
    features = torch.rand(1, 3, 9, 9)
    rois = torch.tensor([[0.0, 0.0, 0.0, 9.0, 9.0]])
    assert pool_pyramid(features, rois, (6, 3, 2, 1), 1.0).shape == (1, 150)
