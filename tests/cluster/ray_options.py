"""The options of `ray` commands, read by Ray's own parser without running anything."""

from __future__ import annotations

import re
from typing import Any

import click
from ray.scripts.scripts import cli as ray_cli

from tests.cluster.cluster_files import VALUE


def parse_ray(words: list[str]) -> dict[str, Any]:
    """The values of all options of a command, by the names that Ray's code gives them.

    Args:
        words: what follows `ray`. `VALUE` in place of a number of cores is taken as 1.

    Raises:
        click.UsageError: Ray has no such command or option, or the value is of another type.
    """
    command: click.Command = ray_cli
    context = click.Context(command)
    while isinstance(command, click.Group):
        name, *words = words
        inner = command.get_command(context, name)
        if inner is None:
            raise click.UsageError(f"ray has no command {name}")
        command = inner
    # As the shell would: numbers in place of variables, which the parser wants to be numbers.
    numbers = [re.sub(rf"^(--num-\w+)={VALUE}$", r"\1=1", word) for word in words]
    return command.make_context(command.name, numbers).params
