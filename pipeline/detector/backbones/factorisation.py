"""Fully connected layers in two factors: `svd` computes them, and compressed checkpoints store them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pipeline.errors import InvalidConfiguration


def find_linear_layers(backbone: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Find the linear layers of a backbone, fc6 first: parent module, name in the parent, layer."""
    return [
        (parent, name, layer)
        for parent in backbone.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear)
    ]


def split_linear_layers(
    backbone: nn.Module, ranks: Sequence[int]
) -> list[tuple[nn.Linear, nn.Linear]]:
    """Replace each linear layer with two layers of random weights, with `rank` values between them.

    Raises:
        InvalidConfiguration: `ranks` does not have one rank per linear layer, or a rank is outside the
            range of its layer.
    """
    layers = find_linear_layers(backbone)
    if len(layers) != len(ranks):
        raise InvalidConfiguration(
            f"expected {len(ranks)} fully connected layers in the head, found {len(layers)}: only a network "
            "with fc6 and fc7 can be factorised, such as one trained with --fc-widths"
        )
    pairs = []
    for number, ((parent, name, layer), rank) in enumerate(zip(layers, ranks, strict=True), 6):
        largest = min(layer.in_features, layer.out_features)
        if not 1 <= rank <= largest:
            raise InvalidConfiguration(
                f"rank {rank} of fc{number}, which is {layer.out_features} x {layer.in_features}: "
                f"expected 1 to {largest}"
            )
        first = nn.Linear(layer.in_features, rank, bias=False)
        second = nn.Linear(rank, layer.out_features)
        setattr(parent, name, nn.Sequential(first, second))
        pairs.append((first, second))
    return pairs
