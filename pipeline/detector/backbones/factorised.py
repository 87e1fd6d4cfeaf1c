"""Fully connected layers in two factors, as `svd` fills them and a compressed checkpoint has them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pipeline.errors import InvalidConfiguration


def fully_connected_layers(backbone: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """The linear layers of a backbone, fc6 first, each with the module that holds it and its name there."""
    return [
        (parent, name, layer)
        for parent in backbone.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear)
    ]


def factorise(backbone: nn.Module, ranks: Sequence[int]) -> list[tuple[nn.Linear, nn.Linear]]:
    """Put two layers of random weights, with `rank` values between them, in the place of each linear one.

    Raises:
        InvalidConfiguration: the backbone has another number of linear layers than `ranks`, or a rank
            lies outside what the layer has.
    """
    layers = fully_connected_layers(backbone)
    if len(layers) != len(ranks):
        raise InvalidConfiguration(
            f"the head has {len(layers)} fully connected layers, {len(ranks)} ranks were given: only a "
            "network with fc6 and fc7 can be factorised, such as one trained with --fc-widths"
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
