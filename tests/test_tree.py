import pytest
import torch

from fmaml import Batch
from fmaml.tree import concat, dot, global_norm, leading, map_leaves, stack, take

pytestmark = pytest.mark.core


def test_operations_keep_the_kind_of_tree():
    tree = Batch(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 2]))
    assert isinstance(take(tree, 1), Batch)
    assert take(tree, 1).x.tolist() == [2, 3]
    assert take(tree, slice(1, 3)).y.tolist() == [1, 2]
    assert stack([take(tree, 0), take(tree, 2)]).y.tolist() == [0, 2]
    assert torch.equal(concat([take(tree, slice(0, 2)), take(tree, slice(2, 3))]).x, tree.x)
    assert map_leaves(lambda a, b: a + b, tree, tree).y.tolist() == [0, 2, 4]


def test_global_norm():
    assert float(global_norm({"a": torch.tensor([3.0]), "b": [torch.tensor([[4.0]])]})) == 5


def test_an_inner_product_goes_by_the_names():
    a, b = {"p": torch.tensor([1.0]), "q": torch.tensor([2.0])}, {"q": torch.tensor([5.0]), "p": torch.tensor([3.0])}
    assert float(dot(a, b)) == 13


def test_leading_axis_must_be_shared():
    assert leading([torch.zeros(3, 2), torch.zeros(3)]) == 3
    for wrong in ([torch.zeros(3), torch.zeros(2)], [torch.zeros(()), torch.zeros(2)]):
        with pytest.raises(ValueError, match="leading axis"):
            leading(wrong)


def test_a_none_among_the_tensors_is_refused_with_the_cure():
    with pytest.raises(ValueError, match="this is a NoneType: leave it out"):
        leading({"ids": torch.zeros(3, 2), "mask": None})
