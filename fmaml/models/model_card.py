"""Model cards: a trained model's use, results and network, from its metadata. Imports no torch."""

import json
from typing import Any

from ..config import packaged
from ..config.config_diff import changed_settings
from ..files.plain_text import with_interval
from .find_model import SHELF, metadata_on_shelf, model_names

USES = {  # targets -> how to use such a model; {name} is the model's
    "classes": """\
```
fmaml predict {name} --support CLASSES/ PHOTO ...      # CLASSES/ has a folder of images for each class
fmaml adapt {name} --support CLASSES/ --out mine.safetensors
```

```python
learner = fmaml.load("{name}")
labels, probabilities = learner.adapt("CLASSES/").predict("PHOTO")
```
""",
    "values": """\
```python
learner = fmaml.load("{name}")
adapted = learner.adapt(x, y)  # tensors [n, {inputs}] and [n, {outputs}]
adapted.outputs(new_x)
```
""",
}
LIMITS = {
    "classes": "It names one of the classes shown, whatever the image holds; its probabilities are not calibrated.",
    "values": "It knows functions like those it was trained on, and no others.",
    "symbols": "It continues passages of languages like those it was trained on, and knows no others.",
    "own_loss": "It adapts to tasks like those it was trained on, by the loss of their source, not by targets.",
}

CALIBRATED_LIMITS = (
    "It tells only the classes shown apart. It refuses pictures far from all of them, but not every picture of "
    "another class."
)


def overview_of_models() -> str:
    """The output of `fmaml ls models`."""
    if not model_names():
        return "this fmaml has no trained models"
    blocks = [f"{name}\n  {model_summary(metadata_on_shelf(name))}" for name in model_names()]
    return "\n".join(
        [*blocks, "", "use: fmaml predict NAME --support DIR PHOTO ..., fmaml test NAME, fmaml.load(NAME)"]
    )


def model_summary(about: dict[str, Any]) -> str:
    """Algorithm, data, task and result in one line."""
    config = about["config"]
    label, value = best_column(about)
    training = f"{config['algorithm']['name']} on {config['data']['name']}, {about['task']}"
    return f"{training}: {about['metric']} {value} ({label})"


def best_column(about: dict[str, Any]) -> tuple[str, str]:
    """The name and the last row, as text, of the column of results to expect in use.

    That is the inductive column if there is one. If a baseline has columns too, the model's own ones begin with the
    name of its algorithm.
    """
    name, results = about["config"]["algorithm"]["name"], about["results"]
    own = [label for label in results if label == name or label.startswith(f"{name}, ")]
    label = (own or [*results])[-1]
    rows = results[label]
    return label, write_value(about["metric"], *rows[-1])


def write_value(metric: str, mean: float | None, ci95: float | None) -> str:
    """A mean with its 95 % interval as text."""
    return with_interval(mean, ci95, ".2%" if metric == "accuracy" else ".3f")


def command_of(about: dict[str, Any]) -> str:
    """The command that trained the model: its experiment, and the settings that differ from it."""
    config, name = about["config"], about["name"]
    if name not in packaged.experiment_names():
        return f"fmaml run {name}.yaml"
    _, changed = changed_settings(config)
    return " ".join(["fmaml run", name, *(f"{key}={json.dumps(value)}" for key, value, _ in changed)])


def card(about: dict[str, Any]) -> str:
    """The card of a model as Markdown."""
    config = about["config"]
    uses = USES[about["targets"]].format(name=about["name"], inputs=about["inputs"][0], outputs=about["outputs"])
    table = [
        "| inner steps | " + " | ".join(about["results"]) + " |",
        "|---|" + "---|" * len(about["results"]),
        *(
            f"| {step} | " + " | ".join(write_value(about["metric"], *row) for row in rows) + " |"
            for step, rows in enumerate(zip(*about["results"].values(), strict=True))
        ),
    ]
    return "\n".join(
        [
            f"# {about['name']}",
            "",
            f"{config['algorithm']['name']} on {config['data']['name']}: {about['protocol']}.",
            "",
            uses,
            f"Measured on {about['tasks']} unseen tasks ({about['metric']}, mean and 95 % interval over tasks):",
            "",
            *table,
            "",
            *(f"- **{name}**: {text}" for name, text in facts_of(about, "`").items()),
            "",
        ]
    )


def facts_of(about: dict[str, Any], quote: str = "") -> dict[str, str]:
    """The other facts of a card: heading -> text, with ``quote`` around commands."""
    config, environment = about["config"], about["environment"]
    settings = ", ".join(f"{key} {value}" for key, value in config["model"].items() if key != "name")
    minutes = f"in {about['training_seconds'] / 60:.0f} minutes"
    duration = minutes if config["train"]["meta_steps"] else "with the parameters of its train.start,"
    return {
        "Network": f"{config['model']['name']} ({settings})",
        "Input": describe_input(about),
        "Data": f"{config['data']['name']}; licence: {about['data']['license']}",
        "Made by": f"{quote}{command_of(about)}{quote}, {duration} on {environment['hardware']}, "
        f"torch {environment['versions']['torch']}, commit {quote}{environment['commit']}{quote}",
        **calibration_facts(about.get("calibration")),
        "Limits": CALIBRATED_LIMITS if about.get("calibration") else LIMITS[about["targets"]],
    }


def calibration_facts(found: dict[str, Any] | None) -> dict[str, str]:
    """The measured calibration, and how well pictures of other classes are refused: heading -> text."""
    if not found:
        return {}
    before, after = found["ece"]
    facts = {
        "Probabilities": f"expected calibration error {after:.1%} on {found['tasks']} test tasks, with the temperature "
        f"{found['temperature']:.2f} of validation tasks; {before:.1%} without"
    }
    if found["auroc"]:
        known, unknown = (f"{share:.1%}" for share in found["refused"])
        mean, ci95 = found["auroc"]
        facts["None of these"] = (
            f"AUROC {with_interval(mean, ci95, '.1%')} against pictures of other classes; at the usual limit {unknown} "
            f"of them are refused, and {known} of the task's own"
        )
    return facts


def describe_input(about: dict[str, Any]) -> str:
    """The network's input, in words."""
    form = about["form"]
    if form is None:
        return f"float32 [n, {', '.join(map(str, about['inputs']))}]"
    fit = {"crop": "cropped to the central square", "squeeze": "squeezed into a square", "pad": "padded with white"}
    colour = "grey" if form["channels"] == 1 else "RGB"
    inverted = ", dark ink becomes 1 on 0" if form["invert"] else ""
    return (
        f"images of any size, {fit[form['fit']]} and resized to {form['size']} pixels, {colour} from 0 to 1{inverted}"
    )


def write_cards() -> None:
    """Write the card of every model on the shelf beside it."""
    for name in model_names():
        (SHELF / f"{name}.md").write_text(card(metadata_on_shelf(name)), encoding="utf-8")
