"""The page of settings, made of the signatures: for each setting an anchor, its values, its default and its meaning.

The meaning is a sentence of `SENTENCES`, else a `Meaning` beside the annotation, else the line of the docstring's
``Args``. A test checks that every setting has one.
"""

import ast
import inspect
import json
import re

import fmaml
from fmaml.config import packaged
from fmaml.config.registry import SETTINGS, TABLE
from fmaml.config.signature import REQUIRED, Setting, dataclass_settings, function_settings
from fmaml.config.source_text import find_function, summary
from fmaml.config.value_descriptions import describe_values
from fmaml.setting_types import Meaning

TARGETS = {name: entry.target for part in ("algorithm", "model", "optimizer") for name, entry in TABLE[part].items()}
ALIKE = re.compile(r"^as (?:in|for|of) `+(?:fmaml\.)?(\w+)`+")
SENTENCES = {  # for settings that the source does not explain in a sentence
    "train.meta_steps": "The number of meta-steps: updates of theta.",
    "train.meta_batch": "Tasks in a meta-step.",
    "train.meta_batch_for": "Whether `meta_batch` counts the tasks of all processes together, or of each process.",
    "train.start": "A trained model to start from: a model file, the folder of a run, or the name of a model.",
    "train.schedule": "The schedule of the outer learning rate.",
    "train.average": "Validate, test and keep a moving average of theta with this decay, such as 0.99.",
    "train.shard_optimizer": "Whether each process holds the optimizer's state of only a part of theta.",
    "train.batching": "Evaluate the tasks of a meta-step in one vectorised call, or in a loop; `auto` picks one.",
    "train.chunk_size": "The number of tasks in memory at a time. Gradients are the same, with less memory.",
    "train.compile": "Compile the meta-step. `auto` compiles runs of 5,000 meta-steps or more, if that pays. "
    "`graph` launches its kernels as one CUDA graph.",
    "train.precision": "The network's arithmetic. `bf16` needs a processor with bf16 instructions, see Speed.",
    "train.validate_every": "Meta-steps between two validations.",
    "train.validate_tasks": "Tasks in a validation.",
    "train.patience": "End training after this many validations without a new best.",
    "train.log_every": "Meta-steps between two lines of the log.",
    "train.log_to": "Where the rows of `metrics.jsonl` are written, too.",
    "train.save_every": "Meta-steps between two checkpoints.",
    "train.on_nan": "End the run on a loss or gradient that is not finite, or skip that meta-step.",
    "train.skip_limit": "With `on_nan=skip`, end the run after this many skipped meta-steps.",
    "train.baseline": "Also test a baseline: joint training (`true` too), fine-tuning, or the model of `train.start`.",
    "eval.tasks": "Test tasks.",
    "eval.steps": "Test after 0, 1, .. this many inner steps.",
    "eval.inductive": "Also classify each query alone, beside the support set. This part of the test takes longest.",
    "data.shots": "Support examples: of each class if the task has classes, else of the task.",
    "data.queries": "Query examples: of each class if the task has classes, else of the task.",
    "data.ways": "Classes of a task. A list of two gives the least and the most.",
    "data.train_ways": "Classes of a training task, if they differ from `ways`.",
    "data.train_shots": "Support examples of each class of a training task, if they differ from `shots`.",
    "data.train_batch": "The size of a training task that is a batch of all training classes, for `pretrain`.",
    "data.root": "The folder with the files. With `null` they are looked for in the usual places.",
    "data.folder.root": "The folder of the images, or a CSV file with the columns file, label and (optionally) split.",
    "data.texts.root": "The folder of the texts.",
    "data.download": "Download the files if they are not found.",
    "data.rotate": "The splits that also use each character rotated by 90, 180 and 270 degrees, as new classes.",
    "data.augment": "Changes of training images: `flip` mirrors, `shift` moves by an eighth, `colour` recolours.",
    "data.cifar_fs.size": "Height and width that images are resized to, in pixels; 32 is their own size.",
    "data.folder.size": "Height and width of the images, in pixels.",
    "data.folder.channels": "1 for grey images, 3 for RGB.",
    "data.folder.fit": "Make an image square: crop it to its centre, squeeze it, or pad it with white.",
    "data.folder.invert": "Exchange light and dark.",
    "data.folder.ink": "With `invert`, whether the ink of drawings is dark or light; `auto` looks at their borders.",
    "data.folder.layout": "Whether the folders train, val and test in `root` are splits; `auto` looks into them.",
    "data.folder.shared_classes": "Allow a class to be in two splits. Its test classes are then not unseen.",
    "data.folder.lower_sizes": "Lower ways, shots, queries and fractions to those that the classes allow.",
    "data.folder.file_column": "The column of a table that names the files. By default it is found by its name.",
    "data.folder.label_column": "The column of a table that names the classes. By default it is found by its name.",
    "data.folder.strict": "End with an error at an unreadable image or a wrong row, instead of leaving it out.",
    "data.fractions": "The parts of the train, val and test splits, if the files are not already split.",
    "data.split_seed": "The seed of the random split.",
    "data.length": "Symbols of a passage: bytes, or tokens with a `tokenizer`.",
    "data.tokenizer": "The folder of a tokenizer of `transformers`. With `null`, symbols are bytes.",
    "data.in_order": "Passages that follow one another in a text, as a stream for `streamed`.",
    "data.in_context": "Also evaluate in-context learning: the support passages are a prompt before each query.",
    "data.markov.symbols": "The number of different symbols.",
    "data.markov.order": "The number of symbols that the next one depends on.",
    "data.markov.concentration": "How evenly the next symbol is distributed. Small: a few symbols are likely.",
    "data.markov.length": "Symbols of a passage.",
    "data.file": "The CSV file.",
    "data.table.task": "The column that names the task of a row.",
    "data.table.target": "The column to predict.",
    "data.table.features": "The columns to predict from. By default all other columns of numbers.",
    "data.table.strict": "End with an error at a row without a value, instead of leaving it out.",
    "data.features.file": "An array X.npy [examples, features]; or a folder with an array NAME.npy for each class.",
    "data.features.labels": "An array y.npy with the class of each example; null: `file` is a folder.",
    "data.signals.features": "The columns of samples in order of time. By default all other columns of numbers.",
    "data.signals.label": "The column that names the class of a signal.",
    "data.signals.channels": "Channels of a signal. The samples of the first channel come first.",
}


def experiments() -> str:
    """A table of the packaged experiments."""
    rows = [f"| `{name}` | {_plain(packaged.headline(name))} |" for name in packaged.experiment_names()]
    return "\n".join(["| experiment | what it trains |", "|---|---|", *rows])


def section(name: str) -> str:
    """The settings of one section, such as data or train, as Markdown."""
    if name in SETTINGS:
        found = dataclass_settings(SETTINGS[name])
        meanings = _beside_fields(SETTINGS[name])
        lines = [_plain(SETTINGS[name].__doc__ or "")]
        lines += [_setting(name, f"{name}.{key}", key, setting, meanings) for key, setting in found.items()]
        return "\n\n".join(lines)
    return "\n\n".join(_entry(name, entry) for entry in TABLE[name])


def without_meaning() -> list[str]:
    """The settings that have no sentence; none, if all is well."""
    text = "\n".join(section(name) for name in [*TABLE, *SETTINGS])
    return re.findall(r"\{#([\w.]+)\}.*\n: +\?$", text, re.MULTILINE)


def _entry(part: str, name: str) -> str:
    target = TABLE[part][name].target
    function = find_function(target)
    meanings = _arguments(target)
    lines = [f"### {name} {{#{part}.{name}}}", f"{_plain(summary(function))} Function: {_link(target)}."]
    for key, setting in function_settings(function).items():
        lines.append(_setting(part, f"{part}.{name}.{key}", key, setting, meanings))
    return "\n\n".join(lines)


def _setting(part: str, anchor: str, key: str, setting: Setting, meanings: dict[str, str]) -> str:
    marked = next((mark.meaning for mark in setting.marks if isinstance(mark, Meaning)), None)
    written = SENTENCES.get(anchor) or SENTENCES.get(f"{part}.{key}")
    meaning = written or marked or meanings.get(key) or "?"
    default = "required" if setting.default is REQUIRED else f"default `{json.dumps(setting.default)}`"
    if not re.match(r"\w+ \*", meaning):
        meaning = meaning[:1].upper() + meaning[1:]
    if meaning != "?" and not meaning.endswith("."):
        meaning += "."
    return f"[`{part}.{key}`](#{anchor}){{#{anchor}}} {describe_values(setting.type)}; {default}\n:   {_plain(meaning)}"


def _link(target: str) -> str:
    module, _, name = target.partition(":")
    public = f"fmaml.{name}" if name in fmaml.__all__ else f"{module}.{name}"
    return f"[`{public}`][{public}]"


def _arguments(target: str) -> dict[str, str]:
    """Parameter -> its line of ``Args``. "as in `maml`" leads to the line of that function."""
    text = ast.get_docstring(find_function(target)) or ""
    args = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    found: dict[str, str] = {}
    for names, lines in re.findall(r"^    ([\w, ]+): (.*(?:\n     .*)*)", args[1] if args else "", re.MULTILINE):
        meaning = re.sub(r"\s+", " ", lines).strip()
        alike = ALIKE.match(meaning)
        there = _arguments(TARGETS[alike[1]]) if alike and alike[1] in TARGETS else {}
        for name in names.split(", "):
            rest = meaning[alike.end() :].strip(" ,;.") if alike else ""
            found[name] = "; ".join(filter(None, [there[name].rstrip("."), rest])) if name in there else meaning
    return found


def _beside_fields(settings: type) -> dict[str, str]:
    """Field -> the comment beside it."""
    return dict(re.findall(r"^    (\w+): .*  # (.*)$", inspect.getsource(settings), re.MULTILINE))


def _plain(text: str) -> str:
    """Text of the source as Markdown: code in backticks, nothing else marked up."""
    parts = re.split(r"(`+[^`]+`+)", text)
    plain = [
        re.sub(r"([*_<\[|])", r"\\\1", part) if i % 2 == 0 else f"`{part.strip('`')}`" for i, part in enumerate(parts)
    ]
    return "".join(plain)
