"""The three families of errors: `Rejected`, `Unavailable`, and everything else, which is our own bug.

`RejectionReason` is public: vectors name it, RPC answers carry it, logs print it, `docs/reasons.md` lists it.
"""

from enum import StrEnum


class RejectionReason(StrEnum):
    """Name the one rule that a message, a file or a call broke; grouped by the ten steps of the spine."""

    # any step: bytes and signatures
    MALFORMED = "malformed"
    """The bytes are not the canonical encoding of the noun they claim to be."""
    TOO_LARGE = "too_large"
    """A size, a count or a depth lies above its bound."""
    FORMAT_UNSUPPORTED = "format_unsupported"
    """The peer, genesis file or data directory is of another format version than this program."""
    WRONG_CHAIN = "wrong_chain"
    """The message belongs to another chain identity."""
    WRONG_SIGNATURE = "wrong_signature"
    """The signature does not recover to the address that had to sign."""
    WRONG_HASH = "wrong_hash"
    """Content does not hash to the identifier that links to it."""
    WRONG_HEIGHT = "wrong_height"
    """The message names another height than the one it is offered for."""
    WRONG_PARENT = "wrong_parent"
    """The message extends another block than the one it is offered for."""
    WRONG_TASK = "wrong_task"
    """The message names another task than the selected one."""
    WRONG_PHASE = "wrong_phase"
    """The message arrived in a phase that does not admit it."""

    # 1 task
    TASK_NUMBER_OUT_OF_RANGE = "task_number_out_of_range"
    """A number in a task is zero, negative, missing or above its bound."""
    TASK_UNKNOWN = "task_unknown"
    """No posted task has this identifier."""
    TASK_DUPLICATE = "task_duplicate"
    """The task was posted before."""
    TASK_EXPIRED = "task_expired"
    """The task's deadline is nearer than the longest round plus the claim window."""
    TASK_SIZE_DECLARED_WRONG = "task_size_declared_wrong"
    """Declared sizes or counts differ from those that follow from the specification."""
    REWARD_TOO_LOW = "reward_too_low"
    """The reward is below the chain's minimum."""
    MODEL_LAYER_UNKNOWN = "model_layer_unknown"
    """A layer kind is not on the allow-list."""
    MODEL_SHAPE_MISMATCH = "model_shape_mismatch"
    """Shapes of connected layers, or of weights and specification, do not fit."""
    MODEL_TOO_LARGE = "model_too_large"
    """The model has more parameters, layers or FLOPs than the chain admits."""

    TEST_SET_REPEATED = "test_set_repeated"
    """Two test sets of a task over several blocks share their key or their rows."""
    TEST_SET_TRAINED = "test_set_trained"
    """A test set has the key or the rows of the training data: miners would hold it while they train."""
    TASK_NOT_TRAINED = "task_not_trained"
    """The consensus trains nothing, so it takes no tasks."""

    # 2 escrow
    ESCROW_MISMATCH = "escrow_mismatch"
    """The value locked is not the reward and bond that the task declares."""

    # 3 selection
    SELECTION_WRONG = "selection_wrong"
    """Another task has the better rank."""
    QUEUED_TASKS_WRONG = "queued_tasks_wrong"
    """The block's list of unselected tasks is not the recomputed one."""
    KEY_MISMATCH = "key_mismatch"
    """The released key does not match the hash committed at posting."""
    PLAINTEXT_MISMATCH = "plaintext_mismatch"
    """The decrypted data do not match the root committed at posting."""
    FUNCTIONAL_KEY_WRONG = "functional_key_wrong"
    """The functional key does not fit the master public key, the data set or the queries of the block."""
    CIPHERTEXT_INVALID = "ciphertext_invalid"
    """A ciphertext is no point of the curve, or its inner product lies outside the declared range."""
    LEAK_BUDGET_SPENT = "leak_budget_spent"
    """The inner products released would let the data set be solved for."""
    ENCRYPTION_UNSUITABLE = "encryption_unsuitable"
    """The task asks for an encryption that its model, its data or this chain's consensus cannot be trained behind."""

    # 4 training
    HYPERPARAMETER_OUT_OF_RANGE = "hyperparameter_out_of_range"
    """A hyper-parameter lies outside the range that the task leaves to the miner."""
    WEIGHTS_MALFORMED = "weights_malformed"
    """The weights file is not a valid safetensors file of the task's model."""
    WEIGHTS_NOT_FINITE = "weights_not_finite"
    """A weight is NaN or infinite."""

    # 5 commitment
    BOND_TOO_LOW = "bond_too_low"
    """The bond is below the chain's minimum."""
    BOND_NOT_DEPOSITED = "bond_not_deposited"
    """The miner has not deposited the bond that its commitment promises, and the chain keeps none back from rewards."""
    COMMITMENT_LATE = "commitment_late"
    """The commitment arrived after the commitment deadline."""
    COMMITMENT_DOUBLE = "commitment_double"
    """The miner committed twice for one height."""
    COMMITMENTS_FULL = "commitments_full"
    """The height already holds as many commitments as the chain admits."""

    PUZZLE_UNSOLVED = "puzzle_unsolved"
    """The commitment's digest does not lie below the target."""
    SHOWN_MODEL_WRONG = "shown_model_wrong"
    """The commitment shows a model where none may be shown, none where one must be, or another than it binds."""

    # 6 reveal
    COMMITMENT_NOT_RELEASED = "commitment_not_released"
    """The commitment is not under the root of the publisher's release."""
    COMMITMENT_UNKNOWN = "commitment_unknown"
    """The reveal opens no commitment that this node knows."""
    REVEAL_MISMATCH = "reveal_mismatch"
    """The revealed values do not hash to the commitment."""
    REVEAL_DOUBLE = "reveal_double"
    """The miner revealed twice with different content."""
    RELEASE_DOUBLE = "release_double"
    """The publisher signed two releases for one height: slashable."""
    RELEASE_ROOT_WRONG = "release_root_wrong"
    """The listed commitments do not hash to the release's root."""
    RELEASE_EARLY = "release_early"
    """The release is dated before the commitment deadline."""
    CLAIM_OUT_OF_RANGE = "claim_out_of_range"
    """The claim is not a count between zero and the size of the test set."""

    # 7 verification
    CLAIM_NOT_EXACT = "claim_not_exact"
    """The exact evaluation gives another count than the claim."""
    MAPPING_FOREIGN = "mapping_foreign"
    """The model was trained behind another mapping layer than the one that follows from the previous block."""
    TRAINING_ACCURACY_LOW = "training_accuracy_low"
    """The model does not reach the required accuracy on the training rows."""
    WATERMARK_MISSING = "watermark_missing"
    """The model does not carry the miner's watermark at the required confidence."""
    BASELINE_NOT_EXACT = "baseline_not_exact"
    """The verdict counts the earlier model of the task otherwise than the exact evaluation does."""
    VERDICT_WRONG = "verdict_wrong"
    """The verdict is not the one that the rules give for the release."""
    NO_VALID_CANDIDATE = "no_valid_candidate"
    """No commitment of the release holds a valid model."""
    TRACE_MISMATCH = "trace_mismatch"
    """The published training trace does not match its committed root."""
    TRACE_TOO_LONG = "trace_too_long"
    """The training trace has more states than the chain admits."""
    SEGMENT_SAMPLE_WRONG = "segment_sample_wrong"
    """The challenged segments are not those that the seed draws."""
    FRAUD_PROOF_INVALID = "fraud_proof_invalid"
    """A proof of a fault has not the form that its finding needs, or does not prove it."""

    # 8 block
    BLOCK_UNKNOWN_PARENT = "block_unknown_parent"
    """The parent block is not known."""
    BLOCK_DUPLICATE = "block_duplicate"
    """The block is known already."""
    TIMESTAMP_WRONG = "timestamp_wrong"
    """A time stamp does not follow from the parent and the schedule."""
    PAYLOAD_INVALID = "payload_invalid"
    """The execution engine refuses the payload."""
    WITHDRAWALS_WRONG = "withdrawals_wrong"
    """The payload's withdrawals are not exactly the payouts of the parent block."""
    RESULT_ROOT_WRONG = "result_root_wrong"
    """The root over settlements does not follow from the parent's."""
    OMMER_NOT_CITABLE = "ommer_not_citable"
    """The cited loser is none that this block may cite: too old, cited before, not the best, or of another branch."""
    EMPTY_BLOCK_EARLY = "empty_block_early"
    """The deadline that the empty block names has not passed."""

    EVIDENCE_STALE = "evidence_stale"
    """The evidence is about a height that is not remembered on this branch: too old, too new, or another branch's."""
    EVIDENCE_DOUBLE = "evidence_double"
    """The offence was punished before, or stands in the block twice."""
    EVIDENCE_INVALID = "evidence_invalid"
    """The statements do not prove the offence that the evidence names."""

    AUDIT_CLOSED = "audit_closed"
    """The height is not open to this audit message: no seed yet, too late, out of turn, or enough auditors."""
    AUDIT_DOUBLE = "audit_double"
    """The auditor said this before."""
    AUDIT_WRONG = "audit_wrong"
    """The report opens no commitment, answers another question, misses a forced error, or judges its own author."""

    AUDIT_CLASS_FOREIGN = "audit_class_foreign"
    """Auditor and winner are not of one declared reproducibility class, so their bits cannot be compared."""
    MACHINE_CLASS_REFUSED = "machine_class_refused"
    """The winner trained in a reproducibility class that this chain does not accept."""

    CHALLENGE_CLOSED = "challenge_closed"
    """The segment cannot be disputed here: height not remembered, too old, nothing traced or reported."""
    CHALLENGE_DOUBLE = "challenge_double"
    """The segment was disputed before, its trainer is punished already, or the block says it twice."""
    CHALLENGE_INVALID = "challenge_invalid"
    """The accused is not who trained the segment, or accuses itself, or the segment is none of its own."""
    CHALLENGE_UNCOVERED = "challenge_uncovered"
    """The accuser has not staked what the accusation costs if it fails."""
    RESPONSE_CLOSED = "response_closed"
    """Nobody asks for these steps on this branch, or no longer, or they are shown already."""
    RESPONSE_INVALID = "response_invalid"
    """The answer opens another segment or commitment, miscounts its steps, or its files are not what it names."""

    # 9 fork choice
    BELOW_FINAL = "below_final"
    """The branch forks off below the final block."""

    # 10 payout
    CLAIM_PAID_BEFORE = "claim_paid_before"
    """The escrow has settled this task already."""

    # execution and interfaces
    TRANSACTION_INVALID = "transaction_invalid"
    """The transaction cannot be executed: type, signature, nonce, fee or balance."""
    EXECUTION_REVERTED = "execution_reverted"
    """The contract call was executed and reverted."""
    CALL_ABORTED = "call_aborted"
    """The call took more time or memory than one caller may use."""
    FILTER_UNKNOWN = "filter_unknown"
    """The filter or subscription is not known, or nobody asked for it in time."""
    BLOB_NOT_NAMED = "blob_not_named"
    """Neither a block nor a task of the chain names the blob, so the node fetches it for nobody."""
    METHOD_UNKNOWN = "method_unknown"
    """The interface has no such method."""
    ARGUMENT_INVALID = "argument_invalid"
    """An argument of a call, a command or a settings file is missing or out of range."""
    RATE_LIMITED = "rate_limited"
    """The peer sent more than its share."""
    PEER_RECORD_STALE = "peer_record_stale"
    """A newer address record of the same peer is known."""
    PEER_RECORD_DOUBLE = "peer_record_double"
    """The peer signed two different address records under one sequence number."""


class Rejected(Exception):
    """Say that somebody else broke a rule: count it against them and change nothing.

    `reason` is what programs and tests look at; `detail` tells a person what was wrong and what to do.
    """

    def __init__(self, reason: RejectionReason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class Unavailable(Exception):
    """Say that something is not here yet: retry later, count it against nobody."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
