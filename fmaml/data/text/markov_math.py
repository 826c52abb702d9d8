"""Random Markov chains and what is exactly known of them: passages, entropy rate, the best possible predictor.

A chain over ``symbols`` symbols of some ``order`` is a table of probabilities [contexts, symbols], a row for each
context: the last ``order`` symbols read as a number in base ``symbols``, the latest the last digit.
"""

import math

import torch
from torch import Tensor

from ..rng import fold, uniform

PROPOSALS = 8  # of the rejection sampler, each accepted with probability 0.95 or more: all refused 4 times in 10^11


def transitions(keys: Tensor, contexts: int, symbols: int, concentration: float) -> Tensor:
    """Rows from the symmetric Dirichlet distribution, one table a key: float64 [tasks, contexts, symbols]."""
    slots = torch.arange(contexts * symbols, device=keys.device)
    return log_gamma_draws(fold(keys[:, None], slots), concentration).unflatten(1, (contexts, symbols)).softmax(-1)


def log_gamma_draws(keys: Tensor, shape: float) -> Tensor:
    """Logarithms of Gamma(shape) variates, one a key; normalised by a softmax they are Dirichlet.

    Marsaglia and Tsang, "A simple method for generating gamma variables", ACM TOMS 2000, for shape + 1, then times
    U^(1 / shape) (their section 6). In logarithms, since for small shapes the variates themselves underflow.
    """
    d = shape + 2 / 3
    first, second, accept = (
        uniform(fold(keys[..., None], 3 * torch.arange(PROPOSALS, device=keys.device) + i)) for i in range(3)
    )
    normal = (-2 * torch.log1p(-first)).sqrt() * (2 * math.pi * second).cos()  # Box and Muller
    v = (1 + normal / math.sqrt(9 * d)) ** 3
    log_v = v.clamp_min(1e-300).log()
    accepted = (v > 0) & (torch.log1p(-accept) < normal**2 / 2 + d * (1 - v + log_v))
    chosen = accepted.int().argmax(-1, keepdim=True)  # the first that was accepted
    power = torch.log1p(-uniform(fold(keys, 3 * PROPOSALS))) / shape
    return math.log(d) + log_v.gather(-1, chosen)[..., 0] + power


def passages(keys: Tensor, table: Tensor, order: int, count: int, length: int) -> Tensor:
    """Passages of each task's chain, int64 [tasks, count, length]; the first ``order`` symbols are uniform."""
    symbols = table.shape[-1]
    slots = torch.arange(count * length, device=keys.device)
    draws = uniform(fold(keys[:, None], slots)).unflatten(1, (count, length))
    cumulative = table.cumsum(-1)[..., :-1].contiguous()  # the last symbol takes what is left, rounding and all
    written = [(symbols * draws[..., i]).long() for i in range(order)]
    tasks = torch.arange(len(keys), device=keys.device)[:, None]
    for i in range(order, length):
        context = number(written[-order:], symbols)  # [tasks, count]
        written.append((draws[..., i, None] >= cumulative[tasks, context]).sum(-1))
    return torch.stack(written, -1)


def number(digits: list[Tensor], base: int) -> Tensor:
    """Digits, the first the highest, to the number that they spell."""
    total = torch.zeros_like(digits[0])
    for digit in digits:
        total = total * base + digit
    return total


def entropy_rate(table: Tensor, order: int) -> Tensor:
    """Bits a symbol in the long run, [tasks]: the rows' entropies weighed by the stationary distribution.

    With T the transitions among contexts and E all ones, the stationary p solves p (I - T + E) = (1, .., 1).
    """
    contexts, symbols = table.shape[-2:]
    from_, to = torch.arange(contexts, device=table.device), torch.arange(symbols, device=table.device)
    moves = torch.zeros(*table.shape[:-1], contexts, dtype=table.dtype, device=table.device)
    moves[..., from_[:, None], (from_[:, None] * symbols + to) % contexts] = table
    system = torch.eye(contexts, dtype=table.dtype, device=table.device) - moves + 1
    stationary = torch.linalg.solve(system.mT, torch.ones_like(table[..., 0]))  # [tasks, contexts]
    return (stationary * torch.special.entr(table).sum(-1)).sum(-1) / math.log(2)


def bayes_bits(support: Tensor, query: Tensor, symbols: int, order: int, concentration: float) -> Tensor:
    """Bits a symbol of the predictor that nothing can beat on average, [tasks].

    It knows the Dirichlet prior, has read the support passages, int64 [tasks, shots, length], and of each query
    passage, [tasks, queries, length], what comes before the symbol that it predicts, just as the model does. Its
    prediction is the posterior mean (count + concentration) / (total + symbols * concentration); the uniform symbols
    that begin a passage cost log2(symbols). The first symbol of a passage is given, not predicted.
    """
    contexts = symbols**order
    seen, wrote = split(support, symbols, order)
    pairs = (seen * symbols + wrote).flatten(1)  # [tasks, shots * predicted]
    counts = torch.zeros(len(pairs), contexts * symbols, dtype=torch.float64, device=pairs.device)
    counts = counts.scatter_add(1, pairs, torch.ones_like(pairs, dtype=torch.float64))
    totals = counts.unflatten(1, (contexts, symbols)).sum(-1)

    seen, wrote = split(query, symbols, order)  # [tasks, queries, predicted]
    pairs = seen * symbols + wrote
    same_pair = (pairs[..., :, None] == pairs[..., None, :]).double().tril(-1).sum(-1)  # so far in this passage
    same_context = (seen[..., :, None] == seen[..., None, :]).double().tril(-1).sum(-1)
    count = same_pair + counts.gather(1, pairs.flatten(1)).view_as(pairs)
    total = same_context + totals.gather(1, seen.flatten(1)).view_as(seen)
    cost = -((count + concentration) / (total + symbols * concentration)).log2()
    beginning = (order - 1) * math.log2(symbols)
    return (cost.sum(-1) + beginning).mean(-1) / (query.shape[-1] - 1)


def split(written: Tensor, symbols: int, order: int) -> tuple[Tensor, Tensor]:
    """Every context that is whole, and the symbol after it: both [..., length - order]."""
    length = written.shape[-1]
    digits = [written[..., i : length - order + i] for i in range(order)]
    return number(digits, symbols), written[..., order:]
