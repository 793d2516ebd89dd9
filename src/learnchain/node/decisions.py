"""Keep what the node decided and why: the last heights in memory, for `why`, the explorer and the live table."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

MAXIMUM_DECISIONS = 2_048
MAXIMUM_CURVE_POINTS = 512
MAXIMUM_TRAININGS = 128


@dataclass(frozen=True)
class Decision:
    """Name one step that was decided at a height: what, about whom, and the numbers it rests on."""

    at_milliseconds: int
    height: int
    step: str
    about: str
    facts: dict[str, Any]


@dataclass
class Decisions:
    """Hold a bounded list of decisions, the training curve of the height, and the seconds spent in each phase."""

    recent: deque[Decision] = field(default_factory=lambda: deque(maxlen=MAXIMUM_DECISIONS))
    curve: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAXIMUM_CURVE_POINTS))
    training: dict[str, Any] = field(default_factory=dict)
    trainings: dict[int, dict[str, Any]] = field(default_factory=dict)
    measured: dict[str, tuple[int, float]] = field(default_factory=dict)
    """How many measurements of a kind were made, and the seconds they took."""

    def note(self, at_milliseconds: int, height: int, step: str, about: str = "", **facts: Any) -> None:
        """Add a decision."""
        self.recent.append(Decision(at_milliseconds, height, step, about, facts))

    def note_measured(self, kind: str, seconds: float) -> None:
        """Add up what measuring costs this node."""
        count, spent = self.measured.get(kind, (0, 0.0))
        self.measured[kind] = (count + 1, spent + seconds)

    def note_training(self, height: int, facts: dict[str, Any]) -> None:
        """Keep where the seconds of a run went; the oldest heights are forgotten."""
        self.training = {"height": height, **facts}
        self.trainings[height] = facts
        while len(self.trainings) > MAXIMUM_TRAININGS:
            del self.trainings[min(self.trainings)]

    def at_height(self, height: int) -> list[Decision]:
        """Return what is remembered of a height, oldest first."""
        return [each for each in self.recent if each.height == height]
