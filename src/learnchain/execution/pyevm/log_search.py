"""Which logs a filter of eth_getLogs and of subscriptions matches."""

from learnchain.execution.pyevm.headers import logs_bloom
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.payload import ExecutionPayload, Log


def may_hold(payload: ExecutionPayload, addresses: tuple[Address, ...], topics: tuple[tuple[Hash32, ...], ...]) -> bool:
    """Say whether the block's bloom filter leaves a match possible."""
    bloom = int.from_bytes(payload.logs_bloom, "big")

    def possible(entry: bytes) -> bool:
        bits = int.from_bytes(logs_bloom([Log(entry, (), b"", b"", 0)]), "big")
        return bloom & bits == bits

    if addresses and not any(possible(address) for address in addresses):
        return False
    return all(not place or any(possible(topic) for topic in place) for place in topics)


def matches(log: Log, addresses: tuple[Address, ...], topics: tuple[tuple[Hash32, ...], ...]) -> bool:
    """Say whether a log is one of the addresses' and has the wanted topic, or one of them, in every place."""
    if addresses and log.address not in addresses:
        return False
    if len(log.topics) < len(topics):
        return False
    return all(not place or topic in place for place, topic in zip(topics, log.topics, strict=False))
