# The public API: read by type checkers, and by __init__.py, which imports each name when it is first used.

from collections.abc import Callable
from typing import Any

from . import data as data
from . import distributed as distributed
from . import rng as rng
from . import setting_types as setting_types
from .algorithms.alfa import alfa as alfa
from .algorithms.cavia import cavia as cavia
from .algorithms.imaml import imaml as imaml
from .algorithms.joint import joint as joint
from .algorithms.lslr import lslr as lslr
from .algorithms.maml import anil as anil
from .algorithms.maml import boil as boil
from .algorithms.maml import maml as maml
from .algorithms.mamlpp import mamlpp as mamlpp
from .algorithms.meta_curvature import meta_curvature as meta_curvature
from .algorithms.meta_sgd import meta_sgd as meta_sgd
from .algorithms.pretrain import pretrain as pretrain
from .algorithms.proto_maml import proto_maml as proto_maml
from .algorithms.proto_mamlpp import proto_mamlpp as proto_mamlpp
from .algorithms.protonet import protonet as protonet
from .algorithms.r2d2 import r2d2 as r2d2
from .algorithms.reptile import reptile as reptile
from .algorithms.scratch import scratch as scratch
from .algorithms.streamed import streamed as streamed
from .algorithms.unicorn_maml import unicorn_maml as unicorn_maml
from .algorithms.warpgrad import warpgrad as warpgrad
from .anneal import first_then as first_then
from .anneal import multi_step as multi_step
from .errors import Error as Error
from .evaluation import evaluate as evaluate
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
from .models.learner import Adapted as Adapted
from .models.learner import Learner as Learner
from .models.load import load as load
from .models.load import load_adapted as load_adapted
from .models.predictor import Prediction as Prediction
from .models.sklearn import FewShotClassifier as FewShotClassifier
from .modules.dropout import Keyed as Keyed
from .modules.dropout import with_keys as with_keys
from .modules.from_module import from_module as from_module
from .modules.from_module import to_module as to_module
from .modules.running_statistics import running_statistics as running_statistics
from .nn.conv1d import conv1d as conv1d
from .nn.conv4 import conv4 as conv4
from .nn.mlp import mlp as mlp
from .nn.resnet12 import resnet12 as resnet12
from .nn.transformer import transformer as transformer
from .optim.optimizers import adam as adam
from .optim.optimizers import adamw as adamw
from .optim.optimizers import average_params as average_params
from .optim.optimizers import cosine as cosine
from .optim.optimizers import momentum as momentum
from .optim.optimizers import sgd as sgd
from .optim.running import track_statistics as track_statistics
from .optim.torch_optim import from_torch as from_torch
from .optim.transforms import chain as chain
from .optim.transforms import clip_by_global_norm as clip_by_global_norm
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
from .unroll import unrolled as unrolled

__all__: list[str]
__version__: str

def imported_when_used(package: str, file: str) -> tuple[Callable[[str], Any], list[str]]: ...
