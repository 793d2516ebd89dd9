"""What PoDL leaves open or says twice, and what this engine does about it."""

from learnchain.protocol.citations import Interpretation

INTERPRETATIONS = (
    Interpretation(
        "PODL-R1",
        "'the model accuracy does not increase significantly after multiple blocks', while 's/he releases new test "
        "datasets for different blocks' (III-B)",
        "Accuracies on different test sets are never compared. The verdict also counts the best earlier model, the "
        "champion, on the winner's test set; the difference of these two counts is the gain.",
        "Fresh sets differ in difficulty; on one set the difference is the models' own.",
        "verification/champion.json",
    ),
    Interpretation(
        "PODL-R2",
        "'whether blocks are reversible does not depend on the number of confirmations. Rather, it depends on the "
        "highest accuracy of the model along the blocks' (III-C), across test sets and tasks",
        "A block weighs 1 while it is the best verified candidate of its release; confirmations count blocks of high "
        "accuracy; ties go to the higher exact count at the first differing height.",
        "Rivals on one parent share task and test set, so only they are comparable.",
        "fork_choice/better_sibling.json",
    ),
    Interpretation(
        "PODL-R3",
        "'miners immediately start training for b_{t+1}' after validating for b_t (III-B), before b_t is known",
        "Initialisation is seeded by the block that selected the task, once; the order of batches at height t by the "
        "block at t-2; the run goes on from the miner's own committed end state at t-1.",
        "Whatever seeds Phase 1 of t+1 must be known when Phase 2 of t begins.",
        "selection/goes_on.json",
    ),
    Interpretation(
        "PODL-R4",
        "'the model requester does not collect the model until ...' (III-B); who is paid for it is not said; 'there is "
        "only one model requester' (III)",
        "The task ends after so many blocks in a row without a significant gain, with its last test set, or before its "
        "deadline. Its reward goes to the champion's miner if the champion reaches the required accuracy on the newest "
        "set, else back. Several requesters are served in the order of posting.",
        "The champion is the model that the requester gets; money follows it.",
        "payout/collected.json",
    ),
    Interpretation(
        "PODL-R5",
        "'Phase 2 for b_t and Phase 1 for b_{t+1} may happen concurrently' (III-B)",
        "Within one task Phase 1 of the next block begins where Phase 1 of this one ends, so the interval is the "
        "length of Phase 1; a new task begins once its parent is known. Phase 2 must be shorter than Phase 1.",
        "The next task is known only with the verdict that ends the last one.",
        "schedule/phases.json",
    ),
    Interpretation(
        "PODL-R6",
        "Nothing is said about a requester or miners that fall silent",
        "An empty block ends the task. Its champion is paid if it had reached the required accuracy; else the reward "
        "is refunded, and the requester's bond burned if it was the requester who was silent.",
        "A requester could take every model but the last for nothing otherwise.",
        "payout/interrupted.json",
    ),
    Interpretation(
        "PODL-R7",
        "Miners 'submit the block header', which includes 'the hashed model', 'by the end of Phase 1' (III-B)",
        "The commitment is the header: its digest hides model, trace and payload until the test set is out.",
        "A bare hash of the model would show two miners that they hold the same one, and a header of an open payload "
        "could be copied.",
        "commitment/late.json",
    ),
    Interpretation(
        "PODL-R8",
        "'hyperparameter, initial weights, number of epochs etc.' let full nodes 'repeat the training' (III-A)",
        "The reveal holds hyper-parameters, epochs, and the root and place of all training states; initial weights "
        "and batch order follow from PODL-R3, so nothing else is needed.",
        "Derived seeds cannot be chosen to fit a result.",
        "reveal/parameters.json",
    ),
    Interpretation(
        "PODL-R9",
        "'various techniques can be used to reduce the sizes' and 'removing models with low accuracy' (III-C)",
        "`model_bits` 8 commits to weights of eight bits with a power-of-two scale; exact counts are of that model. "
        "Old models go, the champion of each task stays; old blocks then verify at header level.",
        "What was committed must be what is counted; a model quantised afterwards would have another count.",
        "training/quantised.json",
    ),
    Interpretation(
        "PODL-R10",
        "'full nodes must ensure the accepted DL models are trained from training datasets only' (III-A), while "
        "'training for one DL model spans across multiple blocks' (III-B): a winner may go on from own runs that lost",
        "The index of a trace opens the commitment that the run goes on from, which stands in the block before. Full "
        "nodes keep those earlier runs with the winner's, and replay level repeats them too, back to a run that won "
        "its own block or to the derived initialisation. An opening that does not fit is a fault that needs no "
        "training.",
        "A miner could lose with a model trained on anything, and win with it one block later, otherwise.",
        "training/earlier_run.json",
    ),
    Interpretation(
        "PODL-R11",
        "The requester is 'a semi-honest adversary who does not collude with anyone' (III); test data are 'without "
        "overlaps' with training data (II-B)",
        "No two parts of a task may share key or root: the release of one must not open another. Roots are salted, so "
        "equal rows under another salt are not seen; who posts them pays for a model that it cannot judge.",
        "What can be checked at posting is checked; for the rest the paper's assumption stands.",
        "bad_input/task_test_set_trained.json",
    ),
    Interpretation(
        "PODL-R12",
        "There is one requester, who is there before the first block (III)",
        "A task posted in block n is selected at n + 2 (ROUND-5): rivals at n + 1 must agree on it, its data "
        "are fetched meanwhile, and Phase 1 of n + 1 began before n was known. Until then the steward's standing task "
        "is trained; it ends with block n + 1, and nobody trains it ahead. Standing tasks begin anew with the sets "
        "that they had before: what they count then is on known data and decides the block reward alone.",
        "One height earlier would mean that candidates of one height train different tasks.",
        "selection/waits.json",
    ),
)
