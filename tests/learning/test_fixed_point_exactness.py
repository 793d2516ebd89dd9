import pytest
import torch
from torch.nn import functional

from learnchain.learning.fixed_point import check_backend
from learnchain.rejection import Unavailable


@pytest.fixture(autouse=True)
def _forget_the_check():
    check_backend.cache_clear()
    yield
    check_backend.cache_clear()


def test_this_machine_evaluates_exactly():
    check_backend()


@pytest.mark.parametrize("name", ["conv2d", "linear"])
def test_reduced_precision_is_noticed(monkeypatch, name):
    exact = getattr(functional, name)

    def shortcut(received, weight):
        return exact(received.to(torch.bfloat16), weight.to(torch.bfloat16)).to(torch.float32)

    monkeypatch.setattr(functional, name, shortcut)
    with pytest.raises(Unavailable):
        check_backend()
