"""The spine: one round of consensus as a pure function, `advance(round, event) -> (round, actions)`.

Ten handlers in the order of the ten steps: task, escrow, selection, training, commitment, reveal, verification,
block, fork choice, reward. The node, the simulator, the vectors and the property tests all drive this one function.
An event that breaks a rule raises `Rejected` and changes nothing; one that comes before what it refers to raises
`Unavailable`. The engine (`rules/`) answers what the papers decide; what is the same for all is decided here.
"""

from learnchain.consensus.round import Round, StoredBlocks, Transition
from learnchain.consensus.transition import advance, begin, resume

__all__ = ["Round", "StoredBlocks", "Transition", "advance", "begin", "resume"]
