"""The parts of `gpu.py`, each a function of the command line and the rows of the file."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from gpu_rows import Rows
from lowerings import LOWERINGS, conv4
from measure import timed
from networks import Problem, conv28, conv84

import fmaml
from fmaml.data.class_examples import consecutive_splits
from fmaml.data.dataset_facts import OMNIGLOT_CLASSES
from fmaml.data.episodes import Episode, episodes
from fmaml.data.source import Source
from fmaml.processes.torch_settings import make_deterministic, set_precision, with_precision
from fmaml.training.cuda_graph import Captured
from fmaml.tree import T, global_norm, is_finite, leaves, map_leaves
from fmaml.types import MetaState, Params, Task

TASKS = 32  # arXiv 1703.03400, appendix A.1; 15 queries a class, as in the other benchmarks
ON_A_GPU = ("grouped", "unfolded once", "bmm", "by task")
PRECISIONS = ("float32", "tf32", "bf16")
EXPERIMENT = Path(__file__).parent.parent / "experiments" / "paper" / "omniglot_5w1s.yaml"
CPU = torch.device("cpu")


class Given(NamedTuple):
    """The arguments of the command line that the parts need."""

    device: torch.device
    quick: bool
    drawings: Path | None
    end: float  # of the part, by the clock of `left`

    @classmethod
    def of(cls, args: Any) -> "Given":
        name = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
        return cls(torch.device(name), args.quick, args.drawings, time.perf_counter() + args.seconds)

    def left(self) -> float:
        """The seconds left for the part."""
        return self.end - time.perf_counter()

    def seconds(self, run: Callable[[], Any], least: int = 5, most: int = 50, limit: float = 3) -> list[float]:
        """Time single calls in seconds, after one that is not counted."""
        run()
        found: list[float] = []
        until = time.perf_counter() + min(limit, self.left())
        while len(found) < (1 if self.quick else most):
            found.append(timed(run, self.device))
            if time.perf_counter() > until and len(found) >= least:
                break
        return found


def ceilings(given: Given, rows: Rows) -> None:
    """The GPU's peak rates; and the error of the meta-gradient by lowering and precision, against float64 on a CPU."""
    rows.add("card", **card(given.device))
    rows.add("copy", gigabytes_a_second=copied(given) / 1e9)
    edge = 256 if given.quick else 8192
    for precision in PRECISIONS:
        set_precision(precision)  # type: ignore[arg-type]
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.randn(edge, edge, device=given.device, dtype=kind) for _ in "ab")
        product = statistics.median(given.seconds(lambda a=a, b=b: a @ b))
        rows.add(f"product, {precision}", tflop_a_second=2 * edge**3 / product / 1e12)
    base = conv28(CPU)
    tasks = base.tasks(2)
    exact = gradient(with_conv(doubled(base), "grouped"), doubled(tasks))
    here, moved = on(base, given.device), map_leaves(lambda leaf: leaf.to(given.device), tasks)
    for lowering in ON_A_GPU:
        for precision in PRECISIONS:
            set_precision(precision)  # type: ignore[arg-type]
            try:
                found = gradient(in_precision(with_conv(here, lowering), precision, given.device), moved)
                apart = map_leaves(lambda g, e: g.to(CPU).double() - e, found, exact)
                rows.add(f"error, {lowering}, {precision}", relative=float(global_norm(apart) / global_norm(exact)))
            except Exception as error:  # measure the other ways, too
                rows.add(f"error, {lowering}, {precision}", why=in_words(error))


def copied(given: Given) -> float:
    """Bytes read and written per second."""
    size = 2**20 if given.quick else 2**31
    source = torch.empty(size // 4, device=given.device).normal_()
    target = torch.empty_like(source)
    return 2 * size / statistics.median(given.seconds(lambda: target.copy_(source)))


def steps(given: Given, rows: Rows) -> None:
    """Time the meta-step of 32 tasks, launched kernel by kernel and as one graph."""
    for lowering in ("grouped", "bmm", "by task"):
        for precision in PRECISIONS if lowering != "by task" else ("tf32",):
            case = f"{lowering}, {precision}"
            try:
                fn, state = meta_step_of(given, lowering, precision)
                eager = given.seconds(lambda fn=fn, state=state: fn(state))
                rows.add(case + ", eager", ms=milliseconds(eager))
                graph = captured(given, fn)
                replayed = milliseconds(given.seconds(lambda graph=graph, state=state: graph(state)))
                rows.add(case + ", graph", ms=replayed, memory=peak(given.device))
            except Exception as error:  # measure the other ways, too
                rows.add(case, why=in_words(error))
            if given.left() < 0:
                return


def training(given: Given, rows: Rows) -> None:
    """Time the steps of `fmaml run omniglot` on drawn characters, without and with a CUDA graph, and compare theta."""
    from fmaml.checkpoints.progress import StepForm
    from fmaml.config.build import build
    from fmaml.config.load import load_config
    from fmaml.config.settings import TrainSettings
    from fmaml.training.step import TrainingStep

    thetas = {}
    for way in ("false", "graph") if given.device.type == "cuda" else ("false",):
        config = load_config("omniglot", ["data.name=glyphs", f"train.compile={way}"])
        experiment, settings = build(config, given.device), TrainSettings(**config["train"])
        step, source = TrainingStep(experiment, settings, print, StepForm()), experiment.source
        params = {
            name: p.to(given.device) for name, p in experiment.model.init(torch.Generator().manual_seed(0)).items()
        }
        state = fmaml.init_state(experiment.algorithm, experiment.optimizer, params)
        many = range(2 if given.quick else settings.meta_batch)
        for number in range(1, 3 if given.quick else 21):
            state, _ = step(state, source.sample("train", number, many))
        thetas[way] = state.theta
        tasks = source.sample("train", 0, many)
        found = given.seconds(lambda step=step, state=state, tasks=tasks: step(state, tasks))
        rows.add(f"train.compile={way}", ms=milliseconds(found), memory=peak(given.device))
    for theta in list(thetas.values())[1:]:
        apart = global_norm(map_leaves(torch.sub, theta, thetas["false"])) / global_norm(thetas["false"])
        rows.add("theta after 20 steps", relative=float(apart))


def compiled(given: Given, rows: Rows) -> None:
    """Time the meta-step compiled and then captured, in TF32: grouped, and as batched products."""
    for name in ("grouped", "unfolded once"):
        case = f"{name}, tf32, compiled"
        if given.left() < 40 and not given.quick:
            rows.add(case, why="no time left to compile")
            return
        try:
            compile_and_capture(given, rows, name, case)
        except Exception as error:
            rows.add(case, why=in_words(error))
        if given.quick:
            return


def compile_and_capture(given: Given, rows: Rows, lowering: str, case: str) -> None:
    fn, state = meta_step_of(given, lowering, "tf32")
    started = time.perf_counter()
    fast = torch.compile(fn, fullgraph=True, dynamic=False)
    fast(state)
    took = time.perf_counter() - started
    rows.add(case, ms=milliseconds(given.seconds(lambda: fast(state))), compiling=took)
    graph = captured(given, fast)
    rows.add(f"{case}, graph", ms=milliseconds(given.seconds(lambda: graph(state))), memory=peak(given.device))
    ours, theirs = graph(state)[1][0]["mean"], fn(state)[1][0]["mean"]  # Adam's first mean, a tenth of the gradient
    apart = global_norm(map_leaves(torch.sub, ours, theirs)) / global_norm(theirs)
    rows.add(f"{case}, gradient", relative=float(apart))


def omniglot(given: Given, rows: Rows) -> None:
    """Run all of `paper/omniglot_5w1s`: sampling, step and check in one graph, then 600 unseen tasks."""
    config = yaml.safe_load(EXPERIMENT.read_text())
    source = real_tasks(config["data"], given)
    set_precision("tf32")
    model = fmaml.conv4(inputs=source.inputs, outputs=source.outputs, width=config["model"]["width"])
    loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    inner_lr, inner_steps = float(config["algorithm"]["inner_lr"]), config["algorithm"]["steps"]
    algorithm = fmaml.maml(loss_fn, inner_lr=inner_lr, steps=inner_steps)
    optimizer = fmaml.adam(float(config["optimizer"]["lr"]))
    params = {name: p.to(given.device) for name, p in model.init(torch.Generator().manual_seed(0)).items()}
    total, meta_batch = (4, 4) if given.quick else (config["train"]["meta_steps"], config["train"]["meta_batch"])

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        """Take a step; keep the old state if the new one is not finite."""
        theta, opt_state, number, skipped, _ = state
        tasks = source.sample("train", number + 1, range(meta_batch))
        new, metrics = fmaml.meta_step(algorithm, optimizer, MetaState(theta, opt_state, 0), tasks)
        fine = is_finite((new.theta, new.opt_state))
        kept = map_leaves(lambda a, b: torch.where(fine, a, b), (new.theta, new.opt_state), (theta, opt_state))
        return *kept, number + 1, skipped + ~fine, metrics["query_loss"]

    zero = torch.zeros((), dtype=torch.int64, device=given.device)
    state = (params, optimizer.init(params), zero, zero.clone(), torch.zeros((), device=given.device))
    graph, started = captured(given, step), time.perf_counter()
    for number in range(1, total + 1):
        state = graph(state)
        if number % max(1, total // 12) == 0:
            loss = float(state[4])  # waits for the device
            took = time.perf_counter() - started
            rows.add(f"step {number}", seconds=took, ms=1e3 * took / number, loss=loss, skipped=int(state[3]))
            if given.left() < 10:
                break
    score(given, rows, config, source, state[0], model.apply, algorithm)


def score(given: Given, rows: Rows, config: Any, source: Source, theta: Any, apply: Any, algorithm: Any) -> None:
    """Measure the accuracy on unseen tasks after each inner step."""
    metric = fmaml.transductive(apply, fmaml.accuracy)
    tasks, many = (4, 4) if given.quick else (config["eval"]["tasks"], 100)
    parts = [source.sample("test", 0, range(first, min(first + many, tasks))) for first in range(0, tasks, many)]
    found = [fmaml.evaluate(algorithm, metric, theta, part, steps=config["eval"]["steps"]) for part in parts]
    scores = torch.cat(found).double()
    interval = 1.96 * scores.std(0) / len(scores) ** 0.5
    rows.add("accuracy", by_step=scores.mean(0).tolist(), ci95=interval.tolist(), tasks=tasks)


def jax(given: Given, rows: Rows) -> None:
    """Time the same meta-gradient in JAX, in its default precision and in float32."""
    from peers_jax import jax_vmapped

    base = conv28(given.device)
    tasks = base.tasks(2 if given.quick else TASKS)
    for precision in ("default", "float32"):
        if precision == "float32":
            import jax as library  # pyright: ignore[reportMissingImports]

            library.config.update("jax_default_matmul_precision", "float32")
        rows.add(f"jit(vmap(grad)), {precision}", ms=milliseconds(given.seconds(jax_vmapped(base, tasks, 1))))
    set_precision("tf32")
    algorithm = base.maml(1)
    ours = given.seconds(lambda: fmaml.meta_grad(algorithm, base.params, tasks)[0])
    rows.add("fmaml.meta_grad, eager, tf32", ms=milliseconds(ours))


def large(given: Given, rows: Rows) -> None:
    """Time tasks of mini-ImageNet's size: all at once, in chunks, one after the other, and recomputed."""
    set_precision("tf32")
    base = conv84(given.device)
    inner_steps, count = (1, 1) if given.quick else (5, 4)
    tasks = base.tasks(count)
    ways: dict[str, dict[str, Any]] = {
        "vmap": {},
        "chunks of 2": {"chunk_size": 2},
        "loop": {"batching": "loop"},
        "vmap, recomputed": {"remat": True},
    }
    for name, options in ways.items():
        algorithm = base.maml(inner_steps, remat=options.pop("remat", False))
        forget(given.device)
        try:
            found = given.seconds(base.step(algorithm, tasks, **options), least=2, most=10)
            rows.add(f"84x84x3, {name}", ms=milliseconds(found), memory=peak(given.device))
        except Exception as error:
            rows.add(f"84x84x3, {name}", why=in_words(error))
        if given.left() < 0:
            return


def resume(given: Given, rows: Rows) -> None:
    """Check whether a repeated run, and a run resumed half-way, have the same bits."""
    set_precision("tf32")
    fn, state = None, None
    for way in ("as it is", "deterministic"):
        if way == "deterministic":
            make_deterministic(given.device)
        fn, state = meta_step_of(given, "grouped", "tf32")
        count = 2 if given.quick else 100
        middle, first = after(fn, state, count), after(fn, state, 2 * count)
        copied = map_leaves(lambda leaf: leaf.to(CPU).to(given.device), middle)
        rows.add(f"again, {way}", same_bits=same(first, after(fn, state, 2 * count)))
        rows.add(f"resumed, {way}", same_bits=same(first, after(fn, copied, count)))
        rows.add(f"cost, {way}", ms=milliseconds(given.seconds(lambda fn=fn, state=state: fn(state))))


PARTS: dict[str, Callable[[Given, Rows], None]] = {
    "ceilings": ceilings,
    "steps": steps,
    "training": training,
    "compiled": compiled,
    "omniglot": omniglot,
    "jax": jax,
    "large": large,
    "resume": resume,
}

Stepped = tuple[Params, Any]  # theta and the optimizer's state


def meta_step_of(given: Given, lowering: str, precision: str) -> tuple[Callable[[Stepped], Stepped], Stepped]:
    """The step of conv4 on fixed tasks, and the state before it."""
    set_precision(precision)  # type: ignore[arg-type]
    forget(given.device)
    base = in_precision(with_conv(conv28(given.device), lowering), precision, given.device)
    tasks, algorithm, optimizer = base.tasks(2 if given.quick else TASKS), base.maml(1), fmaml.adam(1e-3)

    def fn(state: Stepped) -> Stepped:
        new, _ = fmaml.meta_step(algorithm, optimizer, MetaState(*state, 0), tasks)
        return new.theta, new.opt_state

    return fn, (base.params, optimizer.init(base.params))


def captured(given: Given, fn: Callable[[T], T]) -> Callable[[T], T]:
    """The function as one CUDA graph; itself on a CPU, so that everything but the capture can be tested."""
    return Captured(fn) if given.device.type == "cuda" else fn


def with_conv(base: Problem, lowering: str) -> Problem:
    conv = LOWERINGS[lowering]
    return base._replace(apply=lambda params, x: conv4(params, x, conv))


def in_precision(base: Problem, precision: str, device: torch.device) -> Problem:
    if precision != "bf16":
        return base
    return base._replace(
        apply=with_precision(fmaml.Model(lambda generator: base.params, base.apply), "bf16", device).apply
    )


def on(base: Problem, device: torch.device) -> Problem:
    return base._replace(params=map_leaves(lambda p: p.to(device), base.params))


def doubled(tree: T) -> T:
    if isinstance(tree, Problem):
        return tree._replace(params=doubled(tree.params))
    return map_leaves(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, tree)


def gradient(base: Problem, tasks: Task) -> Params:
    return fmaml.meta_grad(base.maml(1), base.params, tasks)[0]


def after(fn: Callable[[Stepped], Stepped], state: Stepped, count: int) -> Stepped:
    for _ in range(count):
        state = fn(state)
    return state


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def real_tasks(data: dict[str, Any], given: Given) -> Source:
    """Omniglot's tasks from the packed drawings; with --quick and without drawings, noise."""
    count = sum(OMNIGLOT_CLASSES.values())
    if given.drawings:
        drawings = torch.load(given.drawings, weights_only=True)
    elif given.quick:
        drawings = torch.randint(256, (count, 20, 1, 28, 28), dtype=torch.uint8)
    else:
        raise ValueError("no --drawings")
    splits = consecutive_splits(drawings.to(given.device), OMNIGLOT_CLASSES, tuple(data["rotate"]))
    return episodes(splits, 0, Episode(data["ways"], data["shots"], data["queries"]), {"data": "omniglot"})


def pack(target: Path) -> None:
    """Save Omniglot's drawings as one tensor, uint8 [1623, 20, 1, 28, 28]."""
    from fmaml.data.sources.omniglot import omniglot

    found = omniglot(seed=0, device=CPU, rotate=())
    parts = [found.data[split].images for split in OMNIGLOT_CLASSES]  # type: ignore[index]
    torch.save(torch.cat(parts).unflatten(0, (-1, 20)).contiguous(), target)


def card(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": "a CPU", "torch": torch.__version__}
    about = torch.cuda.get_device_properties(device)
    return {
        "name": about.name,
        "multiprocessors": about.multi_processor_count,
        "memory": about.total_memory,
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
    }


def forget(device: torch.device) -> None:
    """Reset the peak of memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(device: torch.device) -> int | None:
    """Peak allocated bytes."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None


def milliseconds(samples: list[float]) -> float:
    return 1e3 * statistics.median(samples)


def in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
