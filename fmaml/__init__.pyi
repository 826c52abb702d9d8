# The public API: read by type checkers, and by __init__.py, which imports each name when it is first used.

from .algorithms.maml import maml as maml
from .inner import adapt as adapt
from .inner import inner_update as inner_update
from .inner import trajectory as trajectory
from .losses import accuracy as accuracy
from .losses import bits as bits
from .losses import cross_entropy as cross_entropy
from .losses import inductive as inductive
from .losses import mse as mse
from .losses import supervised as supervised
from .losses import transductive as transductive
from .nn.models import conv4 as conv4
from .nn.models import mlp as mlp
from .nn.module import from_module as from_module
from .nn.transformer import transformer as transformer
from .optim import adam as adam
from .optim import adamw as adamw
from .optim import chain as chain
from .optim import clip_by_global_norm as clip_by_global_norm
from .optim import cosine as cosine
from .optim import momentum as momentum
from .optim import sgd as sgd
from .outer import evaluate as evaluate
from .outer import init_state as init_state
from .outer import meta_grad as meta_grad
from .outer import meta_loss as meta_loss
from .outer import meta_step as meta_step
from .outer import query_loss as query_loss
from .types import Algorithm as Algorithm
from .types import Batch as Batch
from .types import MetaState as MetaState
from .types import Model as Model
from .types import Optimizer as Optimizer
from .types import Params as Params
from .types import Task as Task
from .types import Transform as Transform

__version__: str
