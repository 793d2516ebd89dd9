"""Transactions that wait for a block: ordered by nonce within a sender and by tip between senders, and bounded."""

from collections.abc import Callable, Generator
from heapq import heapify, heappop, heappush

from learnchain.execution.pyevm.transactions import Transaction, invalid
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.rejection import Rejected, RejectionReason

MAXIMUM_COUNT = 8_192
MAXIMUM_BYTES = 16 * 1024 * 1024
MAXIMUM_FOR_SENDER = 256
REPLACEMENT_PERCENT = 10

AccountReader = Callable[[Address], tuple[int, int]]
"""Return nonce and balance in wei of an address at the head."""


class TransactionPool:
    """Keep waiting transactions, at most so many and so many bytes; a fuller pool asks for a higher fee."""

    __slots__ = ("_by_hash", "_by_sender", "_maximum_bytes", "_maximum_count", "_size_bytes")

    def __init__(self, maximum_count: int = MAXIMUM_COUNT, maximum_bytes: int = MAXIMUM_BYTES) -> None:
        self._by_sender: dict[Address, dict[int, Transaction]] = {}
        self._by_hash: dict[Hash32, Transaction] = {}
        self._maximum_count = maximum_count
        self._maximum_bytes = maximum_bytes
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._by_hash)

    @property
    def size_bytes(self) -> int:
        """Return the bytes of all waiting transactions."""
        return self._size_bytes

    def find(self, transaction_hash: Hash32) -> Transaction | None:
        """Return a waiting transaction by its hash."""
        return self._by_hash.get(transaction_hash)

    def add(self, transaction: Transaction, account: AccountReader) -> None:
        """Admit a transaction that the sender can pay for beside its other waiting ones; refuse it otherwise."""
        if transaction.hash in self._by_hash:
            return
        nonce, balance_wei = account(transaction.sender)
        waiting = self._by_sender.get(transaction.sender, {})
        replaced = waiting.get(transaction.nonce)
        if transaction.nonce < nonce:
            raise invalid(f"the nonce is {transaction.nonce}, the sender's next is {nonce}")
        if replaced is None and len(waiting) >= MAXIMUM_FOR_SENDER:
            raise Rejected(RejectionReason.RATE_LIMITED, f"the sender has {len(waiting)} transactions waiting")
        if replaced is not None:
            _check_replacement(replaced, transaction)
        others_wei = sum(other.cost_wei for other in waiting.values() if other is not replaced)
        if balance_wei < others_wei + transaction.cost_wei:
            needed_wei = others_wei + transaction.cost_wei
            raise invalid(f"the sender owns {balance_wei} wei and its waiting transactions may spend {needed_wei}")
        self._make_room(transaction, replaced)
        if replaced is not None:
            self.remove(replaced)
        self._by_sender.setdefault(transaction.sender, {})[transaction.nonce] = transaction
        self._by_hash[transaction.hash] = transaction
        self._size_bytes += len(transaction.raw)

    def remove(self, transaction: Transaction) -> None:
        """Forget a transaction; one that does not wait is ignored."""
        if self._by_hash.pop(transaction.hash, None) is None:
            return
        self._size_bytes -= len(transaction.raw)
        waiting = self._by_sender[transaction.sender]
        del waiting[transaction.nonce]
        if not waiting:
            del self._by_sender[transaction.sender]

    def drop_below(self, sender: Address, nonce: int) -> None:
        """Forget what a sender's account has passed."""
        for transaction in list(self._by_sender.get(sender, {}).values()):
            if transaction.nonce < nonce:
                self.remove(transaction)

    def next_nonce(self, sender: Address, nonce: int) -> int:
        """Return the first nonce from `nonce` on that no waiting transaction of the sender uses."""
        waiting = self._by_sender.get(sender, {})
        while nonce in waiting:
            nonce += 1
        return nonce

    def best(self, base_fee_wei: int) -> Generator[Transaction, bool | None, None]:
        """Yield those that pay the base fee, highest tip first, each sender's in the order of nonces.

        Send True back after a transaction that could not run: its sender's later ones are then left out.
        """
        queues = {
            sender: sorted(waiting.values(), key=lambda transaction: transaction.nonce, reverse=True)
            for sender, waiting in self._by_sender.items()
        }
        heap = [(-queue[-1].tip_wei(base_fee_wei), sender) for sender, queue in queues.items()]
        heapify(heap)
        while heap:
            negative_tip_wei, sender = heappop(heap)
            if negative_tip_wei > 0 or not queues[sender]:
                continue
            transaction = queues[sender].pop()
            failed = yield transaction
            if not failed and queues[sender]:
                heappush(heap, (-queues[sender][-1].tip_wei(base_fee_wei), sender))

    def transactions(self) -> tuple[Transaction, ...]:
        """Return all waiting transactions, in no particular order."""
        return tuple(self._by_hash.values())

    def _make_room(self, transaction: Transaction, replaced: Transaction | None) -> None:
        """Drop the worst-paid last transactions of senders for one that pays more, or refuse it."""
        freed_count, freed_bytes = (1, len(replaced.raw)) if replaced else (0, 0)
        while (
            len(self) - freed_count >= self._maximum_count
            or self._size_bytes - freed_bytes + len(transaction.raw) > self._maximum_bytes
        ):
            tails = [
                waiting[max(waiting)] for sender, waiting in self._by_sender.items() if sender != transaction.sender
            ]
            worst = min(tails, key=_offer, default=None)
            if worst is None or _offer(worst) >= _offer(transaction):
                raise Rejected(RejectionReason.RATE_LIMITED, "the pool is full of better-paid transactions")
            self.remove(worst)


def _offer(transaction: Transaction) -> tuple[int, int]:
    return transaction.max_priority_fee_wei, transaction.max_fee_wei


def _check_replacement(old: Transaction, new: Transaction) -> None:
    for before, after in (
        (old.max_fee_wei, new.max_fee_wei),
        (old.max_priority_fee_wei, new.max_priority_fee_wei),
    ):
        if after * 100 < before * (100 + REPLACEMENT_PERCENT) or after <= before:
            raise invalid(f"a replacement pays at least {REPLACEMENT_PERCENT} % more than {before} wei")
