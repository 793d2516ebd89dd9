"""What torch trains by is what the vectors say in exact numbers: DLBC's Equation 7 and the watermark's matrix."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from learnchain.learning.watermark import add_regulariser, watermark_matrix

VECTORS = Path(__file__).parents[2] / "src/learnchain/engines/dlbc/vectors"


def cases(path):
    return [(each["given"], each["expected"]["result"]) for each in json.loads((VECTORS / path).read_text())["cases"]]


def numbers(written):
    return torch.tensor([float(Fraction(each)) for each in written])


@pytest.mark.parametrize(("given", "expected"), cases("equations/7.json"))
def test_equation_7_is_added_weight_by_weight(given, expected):
    gradient, term = numbers(given["gradient"]), numbers(given["regulariser_gradient"])
    # The vector's numbers are sums of few powers of two, so binary floats carry them exactly.
    add_regulariser(gradient, float(Fraction(given["strength"])), term)
    assert gradient.tolist() == numbers(expected).tolist()


@pytest.mark.parametrize(("given", "expected"), cases("training/watermark_matrix.json"))
def test_the_matrix_is_that_of_the_vector(given, expected):
    assert watermark_matrix(bytes.fromhex(given["bits"][2:]), given["length"]).tolist() == expected
