"""The one table of names: which function each section's `name` picks. Imports no torch."""

TABLE = {  # section -> name -> the function whose parameters are the section's other keys
    "data": {
        "omniglot": "fmaml.data.sources.omniglot:omniglot",
        "glyphs": "fmaml.data.sources.glyphs:glyphs",
        "mini_imagenet": "fmaml.data.sources.mini_imagenet:mini_imagenet",
        "cifar_fs": "fmaml.data.sources.cifar_fs:cifar_fs",
        "folder": "fmaml.data.sources.image_folder:folder",
        "udhr": "fmaml.data.sources.udhr:udhr",
        "markov": "fmaml.data.sources.markov:markov",
        "sinusoid": "fmaml.data.sources.sinusoid:sinusoid",
    },
    "model": {
        "conv4": "fmaml.nn.models:conv4",
        "mlp": "fmaml.nn.models:mlp",
        "transformer": "fmaml.nn.transformer:transformer",
    },
    "algorithm": {
        "maml": "fmaml.algorithms.maml:maml",
        "anil": "fmaml.algorithms.anil:anil",
        "boil": "fmaml.algorithms.boil:boil",
        "meta_sgd": "fmaml.algorithms.meta_sgd:meta_sgd",
        "lslr": "fmaml.algorithms.lslr:lslr",
        "mamlpp": "fmaml.algorithms.mamlpp:mamlpp",
        "meta_curvature": "fmaml.algorithms.meta_curvature:meta_curvature",
        "alfa": "fmaml.algorithms.alfa:alfa",
        "warpgrad": "fmaml.algorithms.warpgrad:warpgrad",
        "cavia": "fmaml.algorithms.cavia:cavia",
        "reptile": "fmaml.algorithms.reptile:reptile",
        "imaml": "fmaml.algorithms.imaml:imaml",
        "proto_maml": "fmaml.algorithms.proto_maml:proto_maml",
        "proto_mamlpp": "fmaml.algorithms.proto_mamlpp:proto_mamlpp",
        "protonet": "fmaml.algorithms.protonet:protonet",
        "r2d2": "fmaml.algorithms.r2d2:r2d2",
        "joint": "fmaml.algorithms.joint:joint",
        "scratch": "fmaml.algorithms.scratch:scratch",
    },
    "optimizer": {
        "sgd": "fmaml.optim:sgd",
        "momentum": "fmaml.optim:momentum",
        "adam": "fmaml.optim:adam",
        "adamw": "fmaml.optim:adamw",
    },
}
NAMELESS = {  # section -> the function whose keyword-only parameters are its keys
    "train": "fmaml.run.train:train",
    "eval": "fmaml.run.train:meta_test",
}
