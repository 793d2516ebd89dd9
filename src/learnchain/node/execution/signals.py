"""Tell whoever listens that the engine's head moved or that a transaction waits; engines call, interfaces listen."""

from collections.abc import Callable
from dataclasses import dataclass, field

from learnchain.primitives.codec import Hash32


@dataclass(frozen=True, slots=True)
class EngineSignals:
    """Hold the listeners; a listener must return at once and must not raise."""

    head_listeners: list[Callable[[Hash32], None]] = field(default_factory=list)
    transaction_listeners: list[Callable[[str], None]] = field(default_factory=list)

    def head_moved(self, head: Hash32) -> None:
        """Report the payload that is now the head."""
        for listener in self.head_listeners:
            listener(head)

    def transaction_waits(self, transaction_hash: str) -> None:
        """Report the 0x-hash of a transaction that the pool has taken."""
        for listener in self.transaction_listeners:
            listener(transaction_hash)
