"""What DLBC leaves open or says twice, and what this engine does about it."""

from learnchain.protocol.citations import Interpretation

INTERPRETATIONS = (
    Interpretation(
        "DLBC-R1",
        "'all miner nodes will train the task with the smallest ranking score' (IV-A, IV-G); 'only the task with the "
        "highest task reward will win' (IV-B, IV-D, IV-H)",
        "The smallest score of Eq. 4 is trained; ties go to the lower task id.",
        "Eq. 4 has the reward in its denominator, so it refines the other rule; IV-G verifies past blocks by it.",
        "selection/smallest_score.json",
    ),
    Interpretation(
        "DLBC-R2",
        "Tasks are submitted in Phase 1 (IV-B) or only in Phase 2 (IV-D)",
        "A task may be posted at any time; selection takes it from the list that the parent block records.",
        "The list of block i-1 is what IV-G verifies against, whatever the phase of posting.",
        "selection/posted_one_block_late.json",
    ),
    Interpretation(
        "DLBC-R3",
        "'P3 starts at time t_ib' (IV-B)",
        "Phase 3 starts at t_ic, where Phase 2 ends.",
        "t_ib is where Phase 2 starts in the same sentence.",
        "schedule/phases.json",
    ),
    Interpretation(
        "DLBC-R4",
        "Headers must be received 'in Phase 1' (IV-H) while training is put in the long Phase 2 (IV-B)",
        "A commitment is in time until Phase 3 begins.",
        "A model cannot be committed before it is trained.",
        "commitment/late.json",
    ),
    Interpretation(
        "DLBC-R6",
        "The watermark comes from 'the hash of the block body and the block header' (IV-C1), and the header holds the "
        "signature of the model",
        "The bits are work_id = H(chain, parent, task, miner).",
        "As printed it is circular; work_id keeps what makes the mark unique, the coinbase identity.",
        "training/watermark_bits.json",
    ),
    Interpretation(
        "DLBC-R7",
        "q is undefined at L = 1; which l Eq. 1 and 5 count",
        "L >= 2; l counts publishers' tasks in the parent's list, the selected one included; with none l := 1 in Eq. 1 "
        "and the publisher's share is 0.",
        "A standing task has no publisher who could be rewarded for bringing it.",
        "payout/standing_task.json",
    ),
    Interpretation(
        "DLBC-R8",
        "'When the length of the task queue is shorter than the threshold (L/k), the system will prefer a complicated "
        "task' (IV-A)",
        "Eq. 4 as printed. At equal reward per FLOP the threshold is exact; at equal reward it holds only for k*l < 1.",
        "q changes sign at k*l = 1, not at l = L/k; tests show both.",
        "selection/threshold.json",
    ),
    Interpretation(
        "DLBC-R9",
        "'the chain who has the most highest-accuracy models' (IV-F) is not defined across tasks",
        "A block weighs 1 while it is the best verified candidate of its release; ties go to the higher exact count at "
        "the first differing height.",
        "Rivals on one parent share task and test set, so only they are comparable.",
        "fork_choice/better_sibling.json",
    ),
    Interpretation(
        "DLBC-R10",
        "The key is released at the end of Phase 3 (IV-E) or once the task is confirmed (IV-B)",
        "The data are encrypted and fetched from the recorded list; the key is released when Phase 1 begins.",
        "Both sentences want all miners to start at once; Phase 1 begins where Phase 3 ends.",
        "selection/key_release.json",
    ),
    Interpretation(
        "DLBC-R11",
        "Medians, FLOPs and sizes of Eq. 2-3 have no source",
        "Medians are parameters of the chain; FLOPs follow from the specification, for one epoch; sizes from "
        "specification and manifest; both difficulties are in seconds.",
        "All nodes must compute the same number.",
        "selection/difficulties.json",
    ),
    Interpretation(
        "DLBC-R12",
        "'Equations 5,7' (IV), 'shorter than K', one index i for block and task",
        "Equations 5 and 6; L; i is the block for l and q, the task for d_n and d_c.",
        "Misprints.",
        "payout/split.json",
    ),
    Interpretation(
        "DLBC-R13",
        "Figure 8 pays at requiredAccuracy; IV pays the best model",
        "The best model wins block and block reward; the task reward is paid only at the required accuracy, else "
        "refunded.",
        "The contract of Figure 8 is what the publisher signed.",
        "payout/below_required.json",
    ),
    Interpretation(
        "DLBC-R14",
        "The watermark is 'a binary matrix of n columns and m rows', 'each column should contain only one 1' (IV-C1); "
        "its layer, lambda and E_R are not printed",
        "Two rows over the mean of a layer's filters, one for the bits 0 and one for the bits 1; the hidden "
        "convolution with the longest mean vector carries it; lambda and the threshold are the engine's parameters; "
        "E_R is a hinge, see `learning/watermark.py`.",
        "A bit says in which of two rows the 1 stands. The gradient of a cross-entropy fades where the 0.9999 of IV-C2 "
        "begins.",
        "training/watermark_matrix.json",
    ),
    Interpretation(
        "DLBC-R15",
        "'The digital signature was achieved by SHA-256' (V, Table I)",
        "The miner signs a digest of model, training data and task with its own key; a bare hash is no signature.",
        "Anybody can hash a model that somebody else has trained.",
        "commitment/attestation.json",
    ),
)
