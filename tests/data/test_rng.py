"""Bits against the published generator, on ints and tensors alike."""

import pytest
import torch

from fmaml.data.source import SPLITS, task_keys
from fmaml.rng import fold, uniform

CPU = torch.device("cpu")

# The first outputs of the authors' C code for two seeds, as unsigned numbers.
PUBLISHED = {
    1234567: [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ],
    0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F],
}


@pytest.mark.parametrize("seed", PUBLISHED)
def test_fold_is_splitmix64(seed):
    outputs = PUBLISHED[seed]
    assert [fold(seed, i) % 2**64 for i in range(len(outputs))] == outputs
    tensor = fold(torch.tensor(seed), torch.arange(len(outputs)))
    assert [value % 2**64 for value in tensor.tolist()] == outputs


def test_ints_and_tensors_agree_for_keys_of_either_sign():
    keys = [fold(7, i) for i in range(100)]
    assert min(keys) < 0 < max(keys)
    for counter in (0, 1, 2**40, 2**62):
        assert fold(torch.tensor(keys), counter).tolist() == [fold(key, counter) for key in keys]


def test_a_task_key_depends_on_nothing_but_its_counters():
    whole = task_keys(3, "train", 11, range(16), CPU)
    assert whole.dtype == torch.int64
    torch.testing.assert_close(task_keys(3, "train", 11, range(4, 12), CPU), whole[4:12], rtol=0, atol=0)
    torch.testing.assert_close(task_keys(3, "train", 11, range(1, 16, 3), CPU), whole[1::3], rtol=0, atol=0)


def test_every_counter_matters():
    keys = [
        int(key)
        for seed in (0, 1, -1, 2**63)
        for split in SPLITS
        for step in (0, 1, 2**31)
        for key in task_keys(seed, split, step, range(10), CPU)
    ]
    assert len(set(keys)) == 4 * 3 * 3 * 10


def test_the_keys_of_past_runs_stay():
    pinned = [task_keys(1, split, 2, range(3, 4), CPU).item() for split in ("train", "val", "test")]
    expected = [fold(fold(fold(1, number), 2), 3) for number in (0, 1, 2)]
    assert pinned == expected


def test_a_step_may_be_a_tensor_and_the_whole_is_one_graph():
    def keys(step):
        return task_keys(5, "val", step, range(8), CPU)

    compiled = torch.compile(keys, fullgraph=True, backend="eager")
    for step in (0, 1, 77):
        assert compiled(torch.tensor(step)).tolist() == keys(step).tolist()


def test_uniform_numbers_are_in_range_and_even():
    numbers = uniform(fold(9, torch.arange(100_000)))
    assert numbers.dtype == torch.float64
    assert 0 <= numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    counts = torch.histc(numbers, 100, 0, 1)
    assert ((counts - 1000) ** 2 / 1000).sum() < 150  # chi-square with 99 degrees; 150 has p = 0.0007


def test_the_bits_of_neighbouring_counters_are_unrelated():
    """Every bit of the output flips for half of the neighbours, in key and in counter."""
    keys = fold(1, torch.arange(20_000))
    for other in (fold(2, torch.arange(20_000)), fold(1, torch.arange(1, 20_001))):
        flips = torch.stack([((keys ^ other) >> bit & 1).double().mean() for bit in range(64)])
        assert (flips - 0.5).abs().max() < 0.015  # 4.2 standard deviations
