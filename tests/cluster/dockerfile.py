"""Read a Dockerfile: its stages, and the instructions of each with continued lines joined."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stage:
    """One `FROM ... AS name` and what follows it."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)
    """Keyword and arguments, in order."""

    def list_arguments(self, keyword: str) -> list[str]:
        """The arguments of each instruction with this keyword."""
        return [arguments for key, arguments in self.instructions if key == keyword]


def read_stages(text: str) -> dict[str, Stage]:
    """The stages by name, in order."""
    joined = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: dict[str, Stage] = {}
    for line in "\n".join(joined).replace("\\\n", " ").splitlines():
        keyword, _, arguments = line.strip().partition(" ")
        if keyword == "FROM":
            base, _, name = arguments.split()
            stage = stages[name] = Stage(base, name)
        elif keyword and stages:
            stage.instructions.append((keyword, " ".join(arguments.split())))
    return stages
