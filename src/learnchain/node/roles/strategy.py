"""What a miner chooses by itself: hyper-parameters inside the task's ranges, and how many epochs it plans."""

from dataclasses import dataclass

from learnchain.primitives.selection import Selection
from learnchain.primitives.training_terms import HyperParameters

MAXIMUM_EPOCHS = 10_000
PLANNED_THOUSANDTHS = 1_250
"""Epochs planned for the time left by the probe, with a reserve: the clock ends the run at an epoch's end anyway."""
LAST_EPOCH_THOUSANDTHS = 1_500
"""What the last epoch may take of a measured one, in thousandths: other miners may train on the same machine."""


@dataclass(frozen=True)
class Strategy:
    """Say how this miner chooses inside the task's ranges: the place in each range, in thousandths from its minimum."""

    learning_rate_thousandths: int = 500
    momentum_thousandths: int = 1_000
    batch_size_thousandths: int = 500
    margin_milliseconds: int = 600
    search_attempts: int = 20_000

    def chosen(self, selection: Selection, epochs: int) -> HyperParameters:
        """Return hyper-parameters inside the ranges of a task."""
        rules = selection.posted.specification.training

        def within(low: int, high: int, thousandths: int) -> int:
            return low + (high - low) * thousandths // 1_000

        rate, momentum, size = rules.learning_rate_millionths, rules.momentum_millionths, rules.batch_size
        return HyperParameters(
            learning_rate_millionths=within(rate.minimum, rate.maximum, self.learning_rate_thousandths),
            momentum_millionths=within(momentum.minimum, momentum.maximum, self.momentum_thousandths),
            weight_decay_millionths=rules.weight_decay_millionths.minimum,
            batch_size=within(size.minimum, size.maximum, self.batch_size_thousandths),
            epochs=epochs,
        )

    def planned(self, closing_milliseconds: int, now_milliseconds: int, epoch_seconds: float) -> tuple[int, int]:
        """Return the epochs to plan until commitments close, and when to end early at the latest."""
        closing = closing_milliseconds - self.margin_milliseconds
        left_seconds = (closing - now_milliseconds) / 1000
        planned = PLANNED_THOUSANDTHS * left_seconds / (1000 * max(epoch_seconds, 1e-6))
        # The epoch that runs when time is up still ends: a long one must not carry the model past the deadline.
        return max(1, min(MAXIMUM_EPOCHS, int(planned))), closing - int(LAST_EPOCH_THOUSANDTHS * epoch_seconds)
