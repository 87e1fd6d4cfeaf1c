"""Asks an autoscaler for nodes, by placement groups that wait for a place."""

from __future__ import annotations

from collections.abc import Sequence

from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from pipeline.runs.placement import Need


class NodeDemand:
    """What a run would use if there were nodes for it.

    An autoscaler sees groups that wait as it sees tasks that wait. Ray's `request_resources` is no
    substitute: a cluster has one such request, which the latest caller overwrites (Ray Train is one), and
    which keeps idle nodes.

    A group that gets its place has done its work, and is removed before an actor or worker takes the place.
    """

    def __init__(self) -> None:
        self._groups: list[PlacementGroup] = []

    @property
    def has_asked(self) -> bool:
        """Whether places are requested that were not there yet."""
        return bool(self._groups)

    def ask(self, need: Need, count: int) -> None:
        """Keep `count` places of `need` requested, each by itself: on whichever nodes have room for them."""
        self._groups = [group for group in self._groups if not _remove_if_placed(group)]
        while len(self._groups) > count:
            remove_placement_group(self._groups.pop())
        while len(self._groups) < count:
            self._groups.append(_create([need]))

    def ask_together(self, needs: Sequence[Need]) -> None:
        """Request places for all of `needs` at once, or nothing; the call replaces an earlier one."""
        self.close()
        if needs:
            self._groups.append(_create(needs))

    def close(self) -> None:
        """Withdraw the request."""
        while self._groups:
            remove_placement_group(self._groups.pop())


def _create(needs: Sequence[Need]) -> PlacementGroup:
    bundles = [dict(need.amounts) for need in needs]
    labels = [dict(need.labels) for need in needs]
    group: PlacementGroup = placement_group(
        bundles, bundle_label_selector=labels if any(labels) else None
    )
    return group


def _remove_if_placed(group: PlacementGroup) -> bool:
    state = placement_group_table(group).get("state", "REMOVED")
    if state == "CREATED":
        remove_placement_group(group)
    return bool(state in ("CREATED", "REMOVED"))
