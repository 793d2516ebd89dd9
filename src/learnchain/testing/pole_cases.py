"""Choose what the vectors of PoLe show: Equation 2, Algorithm 3 with every shift, and the modes of full rank."""

from learnchain.rules.pole import READINGS
from learnchain.rules.pole import mapping as maps
from learnchain.rules.pole.equations import OmmerFormula, citing_rewards, ommer_reward
from learnchain.testing.vectors import Case, Vector, call

_READING_OF = {each.vector: each.identifier for each in READINGS}
_HASH = bytes.fromhex("00f3" + "9c5a" * 15)


def pole_vectors() -> tuple[Vector, ...]:
    """Return the vectors of what PoLe computes."""
    earned = [
        call(
            ommer_reward,
            block_reward_gwei=reward,
            winning_height=winning,
            ommer_height=ommer,
            ommers=ommers,
            formula=formula,
        )
        for formula in OmmerFormula
        for reward, winning, ommer, ommers in (
            (2_000_000_000, 11, 10, 1),
            (2_000_000_000, 16, 10, 3),
            (7, 3, 1, 2),
            (2_000_000_000, 17, 10, 1),
            (2_000_000_000, 11, 10, 0),
        )
    ]
    cited = [call(citing_rewards, block_reward_gwei=2_000_000_000, distance=1, ommers=count) for count in (1, 4)]
    drawn = [
        call(maps.query_vectors, previous_hash=_HASH, dimension=100, count=3, bits_per_weight=bits, shift=shift)
        for shift in maps.Shift
        for bits in (3, 8)
    ]
    full = (
        call(maps.dense_vectors, seed=_HASH, dimension=20, count=3),
        call(maps.sparse_vectors, seed=_HASH, dimension=12, count=6, entries=4),
    )
    return (
        _vector("pole/equations/2.json", "What an ommer earns, and its referrer.", *earned, *cited),
        _vector("pole/algorithms/3.json", "Query vectors of one previous hash.", *drawn),
        _vector("pole/algorithms/full_rank.json", "Signed rows from SHAKE-256.", *full),
    )


def _vector(path: str, about: str, *cases: Case) -> Vector:
    return Vector(path, about, cases, _READING_OF[path])
