"""What a hash puzzle leaves open on a spine that was made for tasks, and what this engine does about it."""

from learnchain.protocol.citations import Interpretation

INTERPRETATIONS = (
    Interpretation(
        "POW-R1",
        "'other participants can easily verify' a nonce (PoLe 1); nobody announces the start or the end of a search",
        "The steward opens every height and dates its end: the release over the first solution is its time stamp.",
        "The same round serves all engines, so that intervals are measured alike. It is a baseline to measure with, "
        "not a permissionless chain: a silent steward stops it, as a silent publisher stops a task.",
        "commitment/unsolved.json",
    ),
    Interpretation(
        "POW-R2",
        "'a nonce x whose hash h(x) begins with a specific number of zeros' (PoLe 1), 'less than a target value' (2.1)",
        "The commitment's digest is a number below a target; the salt is the nonce. Parent, miner, task and payload "
        "are under the digest.",
        "A target adjusts in fine steps, a number of zeros only by halves; what is bound cannot be stolen.",
        "commitment/unsolved.json",
    ),
    Interpretation(
        "POW-R3",
        "No rule for the difficulty is given",
        "After every height the target moves by its share of the error of the solution time, damped, in integers.",
        "A rule for each height needs no window of past blocks, and a test network settles within a few blocks.",
        "payout/target.json",
    ),
    Interpretation(
        "POW-R4",
        "'considers the longest blockchain to be effective' (PoLe 2.1)",
        "Every solved block weighs 1; ties go to the lower hash.",
        "Branches of one parent have one target, so counting blocks and counting work agree until they diverge for "
        "long; finality D bounds that.",
        "fork_choice/longest.json",
    ),
)
