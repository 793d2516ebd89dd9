"""What PoLe leaves open or says twice in what is carried out so far, and what is done about it."""

from learnchain.rules.reading import Reading

READINGS = (
    Reading(
        "POLE-R1",
        "Algorithm 3 slices `master_weight[j(k-1) : jk]`, which is not k bits; `<<` and ToBinary are not defined",
        "Weight j is the bits `[(j-1)k : jk]`; `<<` is a parameter: truncate, rotate or grow; the hash has 256 bits.",
        "The text says 'k: the number of bits for each weight'. Dropping leading zeros would make rank and vectors "
        "depend on how small the hash happens to be.",
        "pole/algorithms/3.json",
    ),
    Reading(
        "POLE-R3",
        "Eq. 2 is printed R_w H_w - H_o * O_num, which grows with the height of the chain",
        "R_w / ((H_w - H_o) * O_num), floored, to a depth of 6; the printed line is a variant. The referrer earns "
        "R_w / 32; both together stay below R_w.",
        "It has the paper's symbols and what uncles are paid for: old and crowded losers earn less. A second identity "
        "still earns that part from its own height; it never earns a block.",
        "pole/equations/2.json",
    ),
    Reading(
        "POLE-R14",
        "Query vectors come from the previous hash (Algorithm 3) or from it and the current Merkle root (Step 3)",
        "`paper` takes the previous hash alone; `dense` and `sparse` take a seed over previous hash, task and data "
        "root and draw rows of full rank from SHAKE-256.",
        "Algorithm 3 repeats a word of 256 bits, so its rank is at most 256 / gcd(256, k): it loses accuracy.",
        "pole/algorithms/full_rank.json",
    ),
)
