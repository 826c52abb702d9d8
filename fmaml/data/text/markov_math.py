"""Random Markov chains: their transition tables, passages, entropy rate and best possible predictor.

A chain of some ``order`` over ``symbols`` symbols is a table of probabilities [contexts, symbols], a row per context.
A context is the last ``order`` symbols read as a number in base ``symbols``, the latest symbol the last digit.
"""

import math

import torch
from torch import Tensor

from ...rng import fold, uniform

_PROPOSALS = 8  # of the rejection sampler. Each is accepted with probability >= 0.95; all fail with 4e-11


def transition_tables(keys: Tensor, contexts: int, symbols: int, concentration: float) -> Tensor:
    """Draw a table per key, float64 [tasks, contexts, symbols], with symmetric Dirichlet rows."""
    slots = torch.arange(contexts * symbols, device=keys.device)
    return log_gamma_draws(fold(keys[:, None], slots), concentration).unflatten(1, (contexts, symbols)).softmax(-1)


def log_gamma_draws(keys: Tensor, shape: float) -> Tensor:
    """Draw logarithms of Gamma(shape) variates, one per key. Their softmax is Dirichlet-distributed.

    Marsaglia and Tsang, "A simple method for generating gamma variables", ACM TOMS 2000, for shape + 1, multiplied by
    U^(1 / shape) (their section 6). Logarithms, because variates of small shapes underflow.
    """
    d = shape + 2 / 3
    first, second, accept = (
        uniform(fold(keys[..., None], 3 * torch.arange(_PROPOSALS, device=keys.device) + i)) for i in range(3)
    )
    normal = (-2 * torch.log1p(-first)).sqrt() * (2 * math.pi * second).cos()  # Box and Muller
    v = (1 + normal / math.sqrt(9 * d)) ** 3
    log_v = v.clamp_min(1e-300).log()
    accepted = (v > 0) & (torch.log1p(-accept) < normal**2 / 2 + d * (1 - v + log_v))
    chosen = accepted.int().argmax(-1, keepdim=True)  # the first accepted proposal
    power = torch.log1p(-uniform(fold(keys, 3 * _PROPOSALS))) / shape
    return math.log(d) + log_v.gather(-1, chosen)[..., 0] + power


def uniforms(keys: Tensor, count: int, length: int) -> Tensor:
    """Draw uniform numbers for ``count`` passages of each task: [tasks, count, length]."""
    slots = torch.arange(count * length, device=keys.device)
    return uniform(fold(keys[:, None], slots)).unflatten(1, (count, length))


def draw_passages(draws: Tensor, table: Tensor, order: int) -> Tensor:
    """Draw passages of each task's chain, int64 [tasks, count, length]. The first ``order`` symbols are uniform.

    ``draws`` are uniform in [0, 1), one per symbol: [tasks, count, length].
    """
    contexts, symbols = table.shape[-2:]
    cumulative = table.cumsum(-1)[..., :-1].contiguous()  # the last symbol gets the rest, with rounding errors
    passage = [(symbols * draws[..., i]).long() for i in range(order)]
    context = _from_digits(passage, symbols)  # [tasks, count]
    tasks = torch.arange(len(draws), device=draws.device)[:, None]
    for draw in draws[..., order:, None].unbind(-2):
        symbol = (draw >= cumulative[tasks, context]).sum(-1)
        context = symbol if order == 1 else (context * symbols + symbol) % contexts
        passage.append(symbol)
    return torch.stack(passage, -1)


def _from_digits(digits: list[Tensor], base: int) -> Tensor:
    """The number with these digits in base ``base``, the most significant first."""
    total = torch.zeros_like(digits[0])
    for digit in digits:
        total = total * base + digit
    return total


def entropy_rate(table: Tensor, order: int) -> Tensor:
    """Entropy rate in bits per symbol, [tasks]: the mean of the rows' entropies under the stationary distribution.

    With T the transition matrix between contexts and E all ones, the stationary p solves p (I - T + E) = (1, .., 1).
    """
    contexts, symbols = table.shape[-2:]
    from_, to = torch.arange(contexts, device=table.device), torch.arange(symbols, device=table.device)
    moves = torch.zeros(*table.shape[:-1], contexts, dtype=table.dtype, device=table.device)
    moves[..., from_[:, None], (from_[:, None] * symbols + to) % contexts] = table
    system = torch.eye(contexts, dtype=table.dtype, device=table.device) - moves + 1
    stationary = torch.linalg.solve(system.mT, torch.ones_like(table[..., 0]))  # [tasks, contexts]
    return (stationary * torch.special.entr(table).sum(-1)).sum(-1) / math.log(2)


def bayes_bits(support: Tensor, query: Tensor, symbols: int, order: int, concentration: float) -> Tensor:
    """Cross entropy in bits per symbol, [tasks], of the Bayes predictor, which has the lowest expected loss.

    It knows the Dirichlet prior. Like the model, it sees the support passages, int64 [tasks, shots, length], and the
    earlier symbols of the query passage, [tasks, queries, length]. Its prediction is the posterior mean
    (count + concentration) / (total + symbols * concentration). The uniform symbols at the start of a passage cost
    log2(symbols) each. The first symbol is given, not predicted.
    """
    contexts = symbols**order
    contexts_seen, next_seen = _context_pairs(support, symbols, order)
    pairs = (contexts_seen * symbols + next_seen).flatten(1)  # [tasks, shots * predicted]
    counts = torch.zeros(len(pairs), contexts * symbols, dtype=torch.float64, device=pairs.device)
    counts = counts.scatter_add(1, pairs, torch.ones_like(pairs, dtype=torch.float64))
    totals = counts.unflatten(1, (contexts, symbols)).sum(-1)

    contexts_seen, next_seen = _context_pairs(query, symbols, order)  # [tasks, queries, predicted]
    pairs = contexts_seen * symbols + next_seen
    same_pair = (pairs[..., :, None] == pairs[..., None, :]).double().tril(-1).sum(-1)  # earlier in this passage
    same_context = (contexts_seen[..., :, None] == contexts_seen[..., None, :]).double().tril(-1).sum(-1)
    count = same_pair + counts.gather(1, pairs.flatten(1)).view_as(pairs)
    total = same_context + totals.gather(1, contexts_seen.flatten(1)).view_as(contexts_seen)
    cost = -((count + concentration) / (total + symbols * concentration)).log2()
    beginning = (order - 1) * math.log2(symbols)
    return (cost.sum(-1) + beginning).mean(-1) / (query.shape[-1] - 1)


def _context_pairs(passages: Tensor, symbols: int, order: int) -> tuple[Tensor, Tensor]:
    """Every complete context, and the symbol after it: both [..., length - order]."""
    length = passages.shape[-1]
    digits = [passages[..., i : length - order + i] for i in range(order)]
    return _from_digits(digits, symbols), passages[..., order:]
