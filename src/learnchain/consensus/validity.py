"""Step 8: what makes a block well-formed under every engine: links, signatures, roots, verdict, payload facts."""

from learnchain.consensus import state
from learnchain.consensus.audits import check_listed_audits
from learnchain.consensus.disputes import check_listed_disputes
from learnchain.consensus.evidence import check_listed_evidence
from learnchain.consensus.penalties import check_bond_cover
from learnchain.encoding.codec import Accuracy, Address, Hash32
from learnchain.encoding.cryptography import check_signature, key_hash, message_hash, recover
from learnchain.engines.contract import Rules
from learnchain.protocol import messages
from learnchain.protocol.measurement import PayloadFacts
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import ChainState, Reward, Selection
from learnchain.rejection import Rejected, RejectionReason

RoundMessage = messages.KeyRelease | messages.Commitment | messages.Release | messages.Reveal


def check_message(message: RoundMessage, selection: Selection, signer: Address, parameters: ChainParameters) -> None:
    """Refuse a message of another chain, height, parent or task, or one that `signer` did not sign."""
    if message.chain_id != parameters.chain_id:
        raise Rejected(RejectionReason.WRONG_CHAIN, f"chain {message.chain_id} is not {parameters.chain_id}")
    if message.height != selection.height:
        raise Rejected(RejectionReason.WRONG_HEIGHT, f"height {message.height} is not {selection.height}")
    if message.parent != selection.parent:
        raise Rejected(RejectionReason.WRONG_PARENT, f"parent {message.parent.hex()[:16]} is not the selection's")
    own = (
        selection.select_assignment(message.miner)
        if isinstance(message, messages.Commitment | messages.Reveal)
        else selection
    )
    if own is None or message.task_id != own.task.task_id:
        raise Rejected(RejectionReason.WRONG_TASK, f"task {message.task_id.hex()[:16]} is not the selected one")
    check_signature(message, signer)


def check_engine_parts(rules: Rules, selection: Selection, block: messages.AnyBlock) -> None:
    """Refuse a block in which a part is malformed, or stands where its engine adds none (ROUND-23)."""
    for commitment in block.commitments:
        rules.parts.check(selection, commitment)
    if isinstance(block, messages.Block):
        for message in (block.key_release, block.reveal.training, block.verdict, block):
            rules.parts.check(selection, message)


def check_key_release(message: messages.KeyRelease, selection: Selection, parameters: ChainParameters) -> None:
    """Refuse a training-data key that is not the publisher's, or not the one committed at posting."""
    check_message(message, selection, selection.task.publisher, parameters)
    _check_key(message.key, selection.posted_task.specification.data.training.key_hash, "training data")


def check_release(
    announcement: messages.ReleaseAnnouncement, selection: Selection, parameters: ChainParameters
) -> None:
    """Refuse a release whose key, root, commitments or date are not what the publisher had to sign."""
    release = announcement.release
    check_message(release, selection, selection.task.publisher, parameters)
    _check_key(release.key, selection.test_set.key_hash, "test set")
    if (
        len(announcement.commitments) != release.count
        or messages.release_root(announcement.commitments) != release.root
    ):
        raise Rejected(RejectionReason.RELEASE_ROOT_WRONG, "the listed commitments are not those under the root")
    if release.count > parameters.maximum_commitments:
        raise Rejected(RejectionReason.COMMITMENTS_FULL, f"{release.count} commitments are too many")
    if release.released_milliseconds < selection.schedule.release_opens_milliseconds:
        raise Rejected(RejectionReason.RELEASE_EARLY, "the release is dated before commitments close")
    if release.released_milliseconds > selection.schedule.release_milliseconds:
        raise Rejected(RejectionReason.WRONG_PHASE, "the release is dated after its deadline")
    miners = {commitment.miner for commitment in announcement.commitments}
    if len(miners) != len(announcement.commitments):
        raise Rejected(RejectionReason.COMMITMENT_DOUBLE, "the release lists two commitments of one miner")
    for commitment in announcement.commitments:
        check_message(commitment, selection, commitment.miner, parameters)


def check_arrival(
    release: messages.Release, selection: Selection, at_milliseconds: int, parameters: ChainParameters
) -> None:
    """Refuse a release whose date its arrival belies: dated ahead, or so far back that miners cannot answer (ROUND-19).

    Whoever dates ahead sees the models, while every block on its release is still from the future; whoever dates back
    has the time for reveals over before it began. Either height would end empty and the reward go back. Half the time
    for reveals must be left, clocks aside: less is as if no release had come, and costs the bond.
    """
    schedule, released, skew = selection.schedule, release.released_milliseconds, parameters.clock_skew_milliseconds
    if released > at_milliseconds + skew:
        raise Rejected(RejectionReason.RELEASE_EARLY, "the release is dated in the future")
    answerable = schedule.deadline(messages.Deadline.REVEAL, released) - schedule.reveal_after_milliseconds // 2
    if at_milliseconds > min(schedule.release_milliseconds, answerable) + skew:
        raise Rejected(RejectionReason.WRONG_PHASE, "the release came after its deadline, or long after its own date")


def check_opening(
    commitment: messages.Commitment, reveal: messages.Reveal, selection: Selection, parameters: ChainParameters
) -> None:
    """Refuse a reveal that does not open its commitment, or whose attestation the miner did not sign."""
    check_message(reveal, selection, commitment.miner, parameters)
    own = selection.select_assignment(reveal.miner) or selection
    work = messages.work_id(parameters.chain_id, selection.parent, reveal.task_id, reveal.miner)
    trained = messages.TrainedModel(reveal.model_cid, reveal.training)
    digest = messages.commitment_digest(work, trained, reveal.payload_hash, reveal.payload_cid, reveal.salt)
    if digest != commitment.digest:
        raise Rejected(RejectionReason.REVEAL_MISMATCH, "the opened values do not hash to the commitment")
    rows = own.posted_task.specification.data.training.plaintext_root
    digest = messages.attestation_digest(reveal.model_cid, rows, reveal.task_id)
    if recover(digest, reveal.attestation) != reveal.miner:
        raise Rejected(RejectionReason.WRONG_SIGNATURE, "the attestation of model, data and task is not the miner's")
    if reveal.training.states > messages.MAXIMUM_STATES:
        # Refused here, so that no reader of the trace's index comes to another view of it later (AUDIT-9).
        detail = f"{reveal.training.states} states; a trace has at most {messages.MAXIMUM_STATES}"
        raise Rejected(RejectionReason.TRACE_TOO_LONG, detail)
    classes = parameters.accepted_classes
    if classes and reveal.training.states > 1 and reveal.training.machine_class not in classes:
        raise Rejected(RejectionReason.MACHINE_CLASS_REFUSED, "the chain does not accept the class of this training")
    reveal.claim()


def check_block(
    parent: ChainState, selection: Selection, block: messages.AnyBlock, reward: Reward, parameters: ChainParameters
) -> None:
    """Refuse a block whose fields do not follow from its parent and its own evidence."""
    if block.chain_id != parameters.chain_id:
        raise Rejected(RejectionReason.WRONG_CHAIN, f"chain {block.chain_id} is not {parameters.chain_id}")
    if block.height != parent.height + 1:
        raise Rejected(RejectionReason.WRONG_HEIGHT, f"height {block.height} does not follow {parent.height}")
    check_signature(block, block.proposer)
    returned = state.is_task_requeued(selection, block)
    listed = state.compute_queued_tasks(parent, selection, parameters.maximum_tasks, returned=returned)
    if block.queued_tasks != tuple(each.task.task_id for each in listed):
        raise Rejected(RejectionReason.QUEUED_TASKS_WRONG, "the list of unselected tasks is not the recomputed one")
    check_listed_evidence(parent.bonds, block, parameters)
    check_listed_disputes(parent.bonds, block, parameters)
    if isinstance(block, messages.Block):
        check_listed_audits(parent.bonds, block, parameters)
    if block.settlement_root != state.compute_settlement_root(parent, selection, block, reward, parameters):
        raise Rejected(RejectionReason.RESULT_ROOT_WRONG, "the settlement root does not follow from the parent's")
    for commitment in block.commitments:
        check_bond_cover(parent.bonds, commitment, parameters.bond_from_reward)
    if isinstance(block, messages.Block):
        _check_candidate(selection, block, parameters)
    else:
        _check_empty(selection, block, parameters)


def check_payload_facts(
    parent: ChainState, selection: Selection, block: messages.AnyBlock, facts: PayloadFacts
) -> None:
    """Refuse a payload that is not the one this block must carry (ROUND-4)."""
    trained = isinstance(block, messages.Block)
    timestamp = state.payload_timestamp(parent, selection, block.end_milliseconds, trained)
    if facts.payload_hash != block.payload_hash:
        raise Rejected(RejectionReason.PAYLOAD_INVALID, "the payload does not hash to the committed hash")
    check_payload_links(parent, facts, timestamp)


def check_payload_links(parent: ChainState, facts: PayloadFacts, timestamp_seconds: int) -> None:
    """Refuse a payload whose parent, time, randomness, root or withdrawals do not follow from the parent block."""
    if facts.parent_hash != parent.payload_hash:
        raise Rejected(RejectionReason.PAYLOAD_INVALID, "the payload extends another payload")
    if facts.timestamp_seconds != timestamp_seconds:
        detail = f"the payload is stamped {facts.timestamp_seconds}, the schedule says {timestamp_seconds}"
        raise Rejected(RejectionReason.TIMESTAMP_WRONG, detail)
    if facts.previous_randao != messages.previous_randao(parent.block_hash) or facts.beacon_root != parent.root:
        raise Rejected(RejectionReason.PAYLOAD_INVALID, "randomness or beacon root do not follow from the parent block")
    if facts.withdrawals != parent.next_withdrawals():
        raise Rejected(RejectionReason.WITHDRAWALS_WRONG, "withdrawals are not exactly the parent's payouts")


def check_time(block: messages.AnyBlock, at_milliseconds: int, parameters: ChainParameters) -> None:
    """Refuse a block from the future; the sender's clock is wrong or its deadline was not awaited."""
    latest = at_milliseconds + parameters.clock_skew_milliseconds
    if isinstance(block, messages.EmptyBlock) and block.end_milliseconds > latest:
        raise Rejected(RejectionReason.EMPTY_BLOCK_EARLY, "the height that the empty block ends is not over")
    if isinstance(block, messages.Block) and block.release.released_milliseconds > latest:
        raise Rejected(RejectionReason.RELEASE_EARLY, "the release is dated in the future")


def _check_key(key: bytes, expected: Hash32, name: str) -> None:
    if key_hash(key) != expected:
        raise Rejected(RejectionReason.KEY_MISMATCH, f"the key of the {name} does not match its hash")


def _check_candidate(selection: Selection, block: messages.Block, parameters: ChainParameters) -> None:
    """Refuse a block whose candidate is not under the release, or whose verdict contradicts its entries (ROUND-20)."""
    check_key_release(block.key_release, selection, parameters)
    check_release(messages.ReleaseAnnouncement(block.release, block.commitments), selection, parameters)
    by_hash = {message_hash(commitment): commitment for commitment in block.commitments}
    winner = by_hash.get(block.verdict.winner)
    if winner is None:
        raise Rejected(RejectionReason.COMMITMENT_NOT_RELEASED, "the winner's commitment is not under the release")
    check_opening(winner, block.reveal, selection, parameters)
    _check_verdict(block, by_hash)


def _check_verdict(block: messages.Block, by_hash: dict[Hash32, messages.Commitment]) -> None:
    verdict, reveal = block.verdict, block.reveal
    entries = [(entry.commitment, entry.miner) for entry in verdict.entries]
    if entries != [(key, commitment.miner) for key, commitment in by_hash.items()]:
        raise Rejected(RejectionReason.VERDICT_WRONG, "the verdict does not list every commitment of the release")
    if (verdict.correct, verdict.total) != (reveal.claim_correct, reveal.claim_total):
        raise Rejected(RejectionReason.VERDICT_WRONG, "the verdict's count is not the winner's claim")
    for entry in verdict.entries:
        if (entry.outcome is messages.CandidateOutcome.WINNER) != (entry.commitment == verdict.winner):
            raise Rejected(RejectionReason.VERDICT_WRONG, "the entries name another winner")
        if entry.outcome is messages.CandidateOutcome.LOWER_CLAIM and _is_better(entry, verdict):
            raise Rejected(RejectionReason.VERDICT_WRONG, "an entry called lower has the better claim")
        if (entry.outcome is messages.CandidateOutcome.REJECTED) != (entry.reason != ""):
            raise Rejected(RejectionReason.VERDICT_WRONG, "a reason stands where none belongs, or is missing")
        if entry.reason and entry.reason not in set(RejectionReason):
            raise Rejected(RejectionReason.VERDICT_WRONG, f"{entry.reason!r} is no reason")


def _is_better(entry: messages.VerdictEntry, verdict: messages.Verdict) -> bool:
    """Return whether an entry's claim beats the winner's; ties go to the lower commitment hash (ROUND-1)."""
    claim, won = Accuracy(entry.claim_correct, entry.claim_total), Accuracy(verdict.correct, verdict.total)
    return (-claim.share, entry.commitment) < (-won.share, verdict.winner)


def _check_empty(selection: Selection, block: messages.EmptyBlock, parameters: ChainParameters) -> None:
    """Refuse an empty block that ends its height before the missed deadline and one window have passed."""
    earliest = selection.schedule.deadline(block.missed) + parameters.empty_window_milliseconds
    if list(block.commitments) != sorted(block.commitments, key=message_hash):
        raise Rejected(RejectionReason.RELEASE_ROOT_WRONG, "the commitments are not in the order of their hashes")
    if len({each.miner for each in block.commitments}) != len(block.commitments):
        raise Rejected(RejectionReason.COMMITMENT_DOUBLE, "an empty block lists two commitments of one miner")
    if len(block.commitments) > parameters.maximum_commitments:
        raise Rejected(RejectionReason.COMMITMENTS_FULL, f"{len(block.commitments)} commitments are too many")
    for commitment in block.commitments:
        check_message(commitment, selection, commitment.miner, parameters)
    beyond = block.end_milliseconds - earliest
    if beyond < 0 or beyond % parameters.empty_window_milliseconds:
        raise Rejected(RejectionReason.TIMESTAMP_WRONG, "an empty block ends whole windows after the missed deadline")
