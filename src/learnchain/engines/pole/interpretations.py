"""What PoLe leaves open or says twice, and what this engine does about it.

POLE-R2 and R9 are about decryption, which `functional_encryption/` carries out. R11, 60,000 training images of CIFAR-10
where there are 50,000, is about the experiments alone, as are the swapped captions of Figures 7 and 8.
"""

from learnchain.protocol.citations import Interpretation

INTERPRETATIONS = (
    Interpretation(
        "POLE-R1",
        "Algorithm 3 slices `master_weight[j(k-1) : jk]`, which is not k bits; `<<` and ToBinary are not defined",
        "Weight j is the bits `[(j-1)k : jk]`; `<<` is a parameter: truncate, rotate or grow; the hash has 256 bits.",
        "The text says 'k: the number of bits for each weight'. Dropping leading zeros would make rank and vectors "
        "depend on how small the hash happens to be.",
        "algorithms/3.json",
    ),
    Interpretation(
        "POLE-R2",
        "Step 4 and Proposition 3.1 print the inner product as log_g(prod ct_j^z_j ct_0^eta) with eta = <s, z>",
        "ct_0^-eta.",
        "prod ct_j^z_j = g^(r <s, z> + <x, z>): the blinding g^(r eta) must be divided out, as the proof itself does. "
        "With the printed sign there is no small logarithm to be found.",
        "equations/1.json",
    ),
    Interpretation(
        "POLE-R3",
        "Eq. 2 is printed R_w H_w - H_o * O_num, which grows with the height of the chain; 'A winning block can only "
        "reference the ommer block with the highest test accuracy'",
        "R_w / ((H_w - H_o) * O_num), floored, to a depth of 6; the printed line is a variant. O_num counts the losers "
        "of the verdict that were not refused. Only the best of them is cited, once; its payload is never executed. "
        "The referrer earns R_w / 32.",
        "It has the paper's symbols and what uncles are paid for: old and crowded losers earn less. Printed, an ommer "
        "at height 1,000,000 would earn a million block rewards.",
        "equations/2.json",
    ),
    Interpretation(
        "POLE-R4",
        "'If the test accuracy is greater than the required accuracy then the block pass' (3.2), while Algorithm 2 "
        "compares the training accuracy; 'When the training time exceeds the maximum completion time, the block with "
        "the highest accuracy is considered as the winner, in this case, there is no ommer block'",
        "Required is the training accuracy, ranked by is the test accuracy. If the release is dated at the time limit "
        "or later and no verified candidate reaches it, the requirement is waived: the highest test accuracy wins the "
        "block reward, the task's reward goes back, nobody becomes an ommer.",
        "'A minimum training accuracy that must be achieved' (3.1) is what a miner can know before the test set.",
        "height/time_limit.json",
    ),
    Interpretation(
        "POLE-R5",
        "Algorithm 2 lists `train_blk: the test data block` and uses test_blk",
        "The test data block is the publisher's release.",
        "A misprint.",
        "verification/algorithm_2.json",
    ),
    Interpretation(
        "POLE-R6",
        "Algorithm 1 lines 15-17 append an unverified block and stop; the text 'saves these blocks and continues'",
        "A miner that hears of other solutions goes on until its own is done or the release comes.",
        "Nothing unverified may enter a chain, and a later model may be the better one.",
        "height/ommer.json",
    ),
    Interpretation(
        "POLE-R7",
        "Lines 10-14 and 24-25 broadcast the block twice; 'trained models' are sent before the test set is released",
        "One broadcast, and it is a commitment; the model is revealed after the release. `open_broadcast` shows the "
        "model with the commitment, as printed.",
        "Shown models can be copied: a thief commits to the same weights and grinds its salt until its hash is lower.",
        "commitment/open.json",
    ),
    Interpretation(
        "POLE-R8",
        "'the first effective block received will be considered as the winner' (3.2), or the highest test accuracy "
        "(Algorithm 1, line 29)",
        "The best verified one; equal counts go to the lower commitment hash.",
        "Nobody can check in which order another node received something.",
        "verification/best_wins.json",
    ),
    Interpretation(
        "POLE-R9",
        "'a master public key h used in encryption, and a master public key s used for decryption' (3.4, Step 1)",
        "s is the master secret key and never leaves the data node; h = g^s is published, and for each height eta = "
        "<s, z> for its query vectors.",
        "With s everybody decrypts every sample; with eta only the products with the chosen vectors.",
        "equations/1.json",
    ),
    Interpretation(
        "POLE-R10",
        "'its blockchain, which represents the best consensus known by this node' (3.2): how branches compare is open",
        "A block weighs 1 while it is the best verified candidate of its release, one that reached the requirement "
        "before one that did not; ties go to the higher exact count at the first differing height.",
        "Rivals on one parent share task and test set, so only they are comparable.",
        "fork_choice/better_sibling.json",
    ),
    Interpretation(
        "POLE-R13",
        "'A task request contains hash pointers to the training set, but not the test set' (3.1)",
        "Root, key hash and sizes of the test set are fixed at posting; the release opens only the key.",
        "A data node that chose the test set after it saw commitments could choose the winner.",
        "selection/test_set_fixed.json",
    ),
    Interpretation(
        "POLE-R14",
        "Query vectors come from the previous hash (Algorithm 3) or from it and the current Merkle root (Step 3)",
        "`paper` takes the previous hash alone; `dense` (the default) and `sparse` take a seed over previous hash, "
        "task and data root and draw rows of full rank from SHAKE-256; `per_miner` adds the miner's work id.",
        "Algorithm 3 repeats a word of 256 bits, so its rank is at most 256 / gcd(256, k): it loses accuracy.",
        "algorithms/full_rank.json",
    ),
    Interpretation(
        "POLE-R15",
        "Algorithm 2 line 10 returns True",
        "It returns False: what did not return before has failed.",
        "A misprint: as printed every block is verified.",
        "verification/algorithm_2.json",
    ),
    Interpretation(
        "POLE-R16",
        "'the test data is then appended in the body of the block' (3.2), whose hash the next height's vectors rest on",
        "The commitment fixes model and payload; release and verdict stand beside them, and the block hash, so the "
        "next PHS, covers all three.",
        "A body that changes after it was hashed has no hash; what is left free is the set of commitments.",
        "training/previous_hash.json",
    ),
    Interpretation(
        "POLE-R17",
        "'Those producers of ommer blocks can also get rewards' (3.5): nobody says who pays",
        "The winner beside whom others committed: a quarter of R_w and the referrer's bonus are withheld from it. Eq. "
        "2 divides that quarter; what nobody earns in 6 heights is never minted. `minted` pays with new coins.",
        "A height never mints more than R_w: at R_w = 2 coins a miner has 2 under one name and at most 2 under two; "
        "`minted` gives 1.94 + 0.06 coins more. How many committed is what the data node signed, so a winner gains "
        "nothing by hiding a loser, by not citing it, or by a false claim in its place. Against an honest second, a "
        "second name earns R_w / 8, 0.25 coins, at the most, with a copy of the first one's model: no weights belong "
        "to a name but by their trace, and losers' traces are not audited.",
        "payout/second_identity.json",
    ),
    Interpretation(
        "POLE-R18",
        "'blk.timestamp < test_blk.timestamp' (Algorithm 2), 'Data nodes will sign the timestamp' (3.1)",
        "A block is in time if and only if its commitment is under the root of the release, which the data node dates "
        "and signs.",
        "A miner's own time stamp proves nothing; the signed list is what everybody can check later. The data node's "
        "is checked on arrival: dated ahead of the clocks it would show models that no block may use yet, dated back "
        "it would leave no time for reveals, and either way the reward would go back. Such a release is as none.",
        "commitment/in_time.json",
    ),
    Interpretation(
        "POLE-R19",
        "The header holds 'block ID, winner's ID, selected task, previous block hash, trained model, model's training "
        "accuracy, ommer block's hash and the hash of the Merkle Tree root' (3.3)",
        "All eight are read off the spine's block; the training accuracy is an exact count under the commitment, the "
        "ommer's hash that of its opening, zeros without one.",
        "One block format serves all engines.",
        "header/header.json",
    ),
    Interpretation(
        "POLE-R20",
        "'The data node can decide to wait for a number of solutions to arrive before releasing the test set' (3.1)",
        "The chain's `solutions` and a minimum time; only bonded commitments count. Who has not reached the "
        "requirement commits at the time limit, after which everybody has a short time of grace before the release.",
        "A number that everybody knows lets miners see whether training on is worth while.",
        "schedule/event_driven.json",
    ),
    Interpretation(
        "POLE-R21",
        "'calculate train_accuracy' after every step (Algorithm 1, line 8)",
        "After every epoch whose running accuracy is half of the requirement, exactly, on all training rows.",
        "Counting all rows after every step would cost more than training.",
        "training/requirement.json",
    ),
    Interpretation(
        "POLE-R22",
        "When a network gets a convolutional layer (CSML, 3.4), how wide its filters are, and what `I` is, is not said",
        "A flat model input of L numbers gets L vectors over the whole sample; an image input of the sample's height "
        "and width and L times its channels gets L filters of `filter_width` squared weights. A model of the sample's "
        "own shape thus has a layer of equal width.",
        "The shape of the model's input says what the publisher wants in front of it. Measured (64 filters, 3,000 and "
        "1,000 MNIST rows): behind another block's signed filters 95.0 % fall to 28.2, behind Algorithm 3's 94.1 only "
        "to 93.9: its weights are positive, its filters all blurs. No layer of any mode binds the training behind it: "
        "its first weights can be solved for another block's layer (docs/pole.md), only a trace cannot.",
        "training/layer_shape.json",
    ),
    Interpretation(
        "POLE-R23",
        "'The output dimension of Secure Mapping Layers is set to 128 for MLP [...]. The number of query vector is set "
        "to 32' (4.3): 128 products of 32 vectors",
        "`parts` cuts a flat sample into pieces of equal length that are mapped by the same vectors: 32 vectors on 4 "
        "parts give 128 products. The default is one part.",
        "It is the one arrangement that gives both numbers; a part is shorter, so Algorithm 3 repeats less.",
        "training/parts.json",
    ),
)
