"""PoLe: proof of learning (Lan et al. 2020): so far what it computes, not yet an engine.

`mapping.py` makes the query vectors of the secure mapping layer (Algorithm 3) and two modes of full rank,
`equations.py` what ommers earn (Equation 2); `learning/mapping.py` applies the vectors. No chain can be started with
it: `--consensus` knows engines only.
"""

from learnchain.rules.pole.readings import READINGS

__all__ = ["READINGS"]
