"""Pre-training: classify all training classes, then fit a classifier of features to each task.

In training:    p(y = c | x) = softmax_c(s cos(f(x), w_c)), c over all training classes
In testing:     p(y = k | x) = softmax_k(|f(x)| cos(f(x), c_k)), c_k the mean of f / |f| over the support of class k,
                as in Chen et al. (arXiv 2003.04390, 3.1); or
                p(y = k | x) = softmax_k(f(x)' w_k), W the ridge regression of one-hot labels on f / |f|

The network is the start of meta-training: ``train.start`` takes it without its last layer.
"""

from typing import Literal

from torch import Tensor
from torch.nn.functional import normalize

from ..head import check_classes, cosine_prototypes, cosine_ridge, features, head_weight
from ..losses import Apply, cross_entropy
from ..setting_types import Rate, Unit
from ..torch_fixes.stored_norm import with_batch_statistics
from ..tree import concat, squared_norm
from ..types import Algorithm, Batch, Metrics, Params, Task


def pretrain(
    apply: Apply,
    *,
    scale: Rate = 10.0,
    smoothing: Unit = 0.1,
    classifier: Literal["prototypes", "ridge"] = "prototypes",
    ridge: Rate = 0.1,
    head: str = "head",
) -> Algorithm[Params]:
    """Classify batches of all training classes; fit a classifier of its features to each task, without a step.

    A training task is a batch: its support and query sets are classified together, and their labels are the classes'
    own numbers. The sources of fmaml draw such tasks with ``data.train_batch``.

    A network with norm="stored" is normalised by the statistics of each batch, and its stored statistics get their
    distance to these as gradient, for `fmaml.track_statistics`. A task is normalised by the stored ones.

    Args:
        apply: the model's forward pass; its last layer has one output for each training class.
        scale: s, the factor of the cosines.
        smoothing: the share of the labels' probability that all classes get alike.
        classifier: the classifier that a task gets. "prototypes": the mean direction of each class's features. "ridge":
            ridge regression of one-hot labels on the features' directions. Ridge can win on images unlike those in
            training, and lose on images like them (docs/decisions.md).
        ridge: lambda of the ridge regression, above 0.
        head: the name of the network's last linear layer. A task replaces it.

    Returns:
        The algorithm; its theta is the parameters. It has no trajectory.

    Raises:
        ValueError: from ``init``: the model has no such layer; on use: the targets are not class labels.

    Source: arXiv 2003.04390, section 3.1 (Classifier-Baseline); the cosine in training, arXiv 1904.04232, section 3.2.
    A linear classifier on normalised features: arXiv 2003.11539, section 3.2. Ridge regression: arXiv 1805.08136.

    >>> import torch, fmaml
    >>> model = fmaml.conv4(inputs=(1, 28, 28), outputs=64, width=8, norm="stored")
    >>> algorithm = fmaml.pretrain(model.apply)
    >>> half = fmaml.Batch(torch.rand(1, 64, 1, 28, 28), torch.arange(64)[None])
    >>> optimizer = fmaml.track_statistics(fmaml.adam(1e-3))
    >>> state = fmaml.init_state(algorithm, optimizer, model.init(torch.Generator().manual_seed(0)))
    >>> fmaml.meta_step(algorithm, optimizer, state, fmaml.Task(half, half))[0].step
    1
    """

    def init(params: Params) -> Params:
        head_weight(params, head)
        return dict(params)

    def features_of(params: Params, x: Tensor) -> Tensor:
        return features(apply, params, x, head)

    def adapt(theta: Params, support: Batch) -> Params:
        if classifier == "ridge":
            return cosine_ridge(apply, theta, support, ridge, head, "pretrain")
        return cosine_prototypes(apply, theta, support, head, "pretrain")

    def loss(theta: Params, task: Task) -> tuple[Tensor, Metrics]:
        batch = concat([task.support, task.query])
        check_classes(batch, "pretrain")
        f, statistics = with_batch_statistics(features_of, theta, batch.x)
        w = normalize(theta[f"{head}.weight"], dim=1)
        mean = cross_entropy(scale * normalize(f, dim=1) @ w.T, batch.y, smoothing=smoothing)
        away = squared_norm({name: theta[name] - found for name, found in statistics.items()}) if statistics else 0.0
        return mean + 0.5 * away, {"query_loss": mean}

    return Algorithm(init, adapt, loss)
