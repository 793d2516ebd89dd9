"""Terms and a description that the tests of the market share."""

from learnchain.encoding.content_id import cid_of_block
from learnchain.market.terms import Description, Payment, SampleData, Terms, VoteInterpretation
from learnchain.protocol.model_presets import mlp

ETHER = 10**18
TERMS = Terms(
    closes_seconds=1_100_000,
    commit_seconds=100,
    reveal_seconds=100,
    rows=1_000,
    fitness=100,
    tolerance=50,
    interpretation=VoteInterpretation.GAIN,
    payment=Payment.WITHIN_TOLERANCE,
    models=2,
    committee=3,
    model_wei=5 * ETHER,
    vote_wei=ETHER,
    stake_wei=3 * ETHER,
    bond_wei=2 * ETHER,
)
MODEL = mlp((4,), 3, hidden=(5,))
CID = cid_of_block(b"a model")
DESCRIPTION = Description(
    "title",
    "properties",
    (4,),
    ("a", "b", "c"),
    SampleData(CID, CID, CID),
    (),
    0,
    "strategy_2",
    "literal",
    1 << 20,
)
