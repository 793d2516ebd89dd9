"""Which blobs the chain names, and how large each may be: a stranger's call makes this node fetch nothing else."""

from learnchain.learning.trace import MAXIMUM_INDEX_BYTES
from learnchain.node.measuring import WEIGHTS_HEADER_BYTES
from learnchain.node.storage.archive import Archive
from learnchain.primitives.chain_state import ChainState
from learnchain.primitives.messages import AnyBlock, Block
from learnchain.primitives.model_costs import BYTES_PER_PARAMETER, model_bytes
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.payload import MAXIMUM_PAYLOAD_BYTES
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable
from learnchain.primitives.task_specification import Cid, TaskSpecification
from learnchain.rules.contract import Rules


def named_by(block: AnyBlock, state: ChainState) -> tuple[Cid, ...]:
    """Return what a block names: payload, model, trace, cited models, and the data of tasks posted in it."""
    posted = (each.specification for each in state.incoming)
    data = tuple(cid for specification in posted for cid in _data(specification))
    if not isinstance(block, Block):
        return (block.payload_cid, *data)
    cited = tuple(each.model_cid for each in block.ommers)
    return (block.payload_cid, block.reveal.model_cid, block.reveal.training.trace_cid, *cited, *data)


class NamedBlobs:
    """Look up blobs by what the chain says of them."""

    def __init__(self, archive: Archive, rules: Rules, parameters: ChainParameters) -> None:
        self._archive, self._rules, self._parameters = archive, rules, parameters
        self._standing: dict[Cid, int] = {}
        for _, specification in parameters.standing_tasks():
            self._standing |= _data(specification)

    def maximum_bytes(self, cid: Cid) -> int:
        """Return how large a named blob may be; refuse one that no block, no task and no genesis names."""
        if cid in self._standing:
            return self._standing[cid]
        naming = self._archive.blobs.naming_block(cid)
        found = {} if naming is None else self._bounds(naming)
        if cid not in found:
            raise Rejected(RejectionReason.BLOB_NOT_NAMED, "no block of this chain and no task in it names the blob")
        return found[cid]

    def _bounds(self, block_hash: bytes) -> dict[Cid, int]:
        try:
            block, state = self._archive.block(block_hash), self._archive.state(block_hash)
            parent = self._archive.state(state.parent)
        except Unavailable:
            # The block lost and was forgotten.
            return {}
        found = {cid: size for each in state.incoming for cid, size in _data(each.specification).items()}
        found[block.payload_cid] = MAXIMUM_PAYLOAD_BYTES
        if isinstance(block, Block):
            model = self._rules.select_task(parent, self._parameters).posted.specification.model
            largest = BYTES_PER_PARAMETER * self._parameters.maximum_model_parameters
            # A cited model was trained for another height, maybe for another task.
            found |= {each.model_cid: largest + WEIGHTS_HEADER_BYTES for each in block.ommers}
            found[block.reveal.model_cid] = model_bytes(model) + WEIGHTS_HEADER_BYTES
            found[block.reveal.training.trace_cid] = MAXIMUM_INDEX_BYTES
        return found


def _data(specification: TaskSpecification) -> dict[Cid, int]:
    data = specification.data
    return {each.cid: each.ciphertext_bytes for each in (data.training, *data.tests)}
