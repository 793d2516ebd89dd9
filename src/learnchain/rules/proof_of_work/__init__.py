"""Proof of work: the baseline of PoLe's Table 1 (Nakamoto 2008, as PoLe 1 and 2.1 describe it), on the same spine.

Nothing is trained. A commitment is the solution of a SHA-256 puzzle over parent, miner and payload; the first one in
time ends the height, the rest is the round of every other engine. The target follows the time that solutions took.

Read `rules.py` for the ten answers, `difficulty.py` for the target, and the readings below for what a puzzle leaves
open on a spine that was made for tasks.
"""

from learnchain.rules.proof_of_work.readings import READINGS
from learnchain.rules.proof_of_work.rules import LOCAL, ProofOfWork

__all__ = ["LOCAL", "READINGS", "ProofOfWork"]
