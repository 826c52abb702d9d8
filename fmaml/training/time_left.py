"""How long a run still takes: from the pace of its last minute, the validations to come and the test at its end."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from ..config.settings import Config, EvalSettings, TrainSettings
from ..data.source import QuerySetting, Source
from ..tree import leading, take

Clock = Callable[[], float]  # seconds
Timed = Literal["scores", "validation"]  # what is done between steps
WINDOW_S = 60.0
SPAN_S = 1.0  # steps are counted together until they have taken this long
FEWEST_SPANS = 3
OUTLIER = 3.0  # a span this many times slower than the middle one is not the pace: a pause, or compiling once more
RECENT_SCORES = 5
COST_ALONE = 1.5  # what an example costs where a query is alone, beside one of many: 0.7 to 3.0 for conv4 on a CPU
FIRST_STEPS = 2  # of a process: its start, and compiling


class Plan(NamedTuple):
    """What a run has before it. Where nothing was measured yet, costs are compared by forward passes."""

    meta_steps: int
    validate_every: int
    validation: float  # in units of the scores before and after, which a logged step computes
    testing: float  # in validations


def plan_of(config: Config, source: Source) -> Plan:
    """The plan of a training with this config; its test includes that of a baseline that is trained."""
    train, test = TrainSettings(**config["train"]), EvalSettings(**config["eval"])
    inner_steps = config["algorithm"].get("steps", 1)
    validation = train.validate_tasks * forward_passes(source, source.settings[0], test.steps)
    scores = train.meta_batch * forward_passes(source, source.settings[0], inner_steps)
    trained = 2 if train.baseline else 1
    tested = source.tested(alone=test.inductive)
    testing = trained * test.tasks * sum(forward_passes(source, protocol, test.steps) for protocol in tested)
    return Plan(train.meta_steps, train.validate_every, validation / scores, testing / validation)


def forward_passes(source: Source, protocol: QuerySetting, steps: int) -> float:
    """Passes of one example through the network, for the metric of a task after 0 .. ``steps`` inner steps.

    A gradient counts as two more. The first protocol of a source takes the queries together, and validations are by it;
    in others each query is alone with the support set, which goes through with each.
    """
    task = take(source.sample("test", 0, range(1)), 0)
    support, queries = leading(task.support.x), leading(task.query.x)
    a_query = 1 if protocol is source.settings[0] else COST_ALONE * (support + 1)
    return 3 * steps * support + (steps + 1) * queries * a_query


class Pace:
    """Seconds a step, of late; and from it the seconds that are left."""

    def __init__(self, plan: Plan, step: int, clock: Clock = time.perf_counter) -> None:
        """``step`` is the one that the run goes on from; what an earlier process took says nothing of this one."""
        self.plan = plan
        self.clock = clock
        self.step = step
        self.validated = step
        self.first: list[float] = []  # seconds of the first steps of this process
        self.spans: deque[tuple[float, float, int]] = deque()  # when it ended, its seconds, its steps
        self.seconds, self.steps = 0.0, 0  # of the span that has not ended
        self.scores: deque[float] = deque(maxlen=RECENT_SCORES)  # seconds
        self.validation: float | None = None  # seconds of the last one
        self.last = clock()

    def stepped(self, step: int) -> None:
        """A step has ended."""
        now = self.clock()
        taken, self.last, self.step = now - self.last, now, step
        if len(self.first) < FIRST_STEPS:
            self.first.append(taken)
            return
        self.seconds, self.steps = self.seconds + taken, self.steps + 1
        if self.seconds >= SPAN_S:
            self.spans.append((now, self.seconds, self.steps))
            self.seconds, self.steps = 0.0, 0
        while len(self.spans) > FEWEST_SPANS and self.spans[0][0] < now - WINDOW_S:
            self.spans.popleft()

    @contextmanager
    def timed(self, what: Timed) -> Iterator[None]:
        """Measure the block. A validation does not count as part of a step; scores do."""
        begin = self.clock()
        yield
        taken = self.clock() - begin
        if what == "validation":
            self.last += taken
            self.validated = self.step
            self.validation = taken
        else:
            self.scores.append(taken)

    def seconds_a_step(self) -> float | None:
        """The mean over the last minute, without pauses; None if nothing is known yet."""
        if self.spans:
            usual = statistics.median(seconds / steps for _, seconds, steps in self.spans)
            kept = [(seconds, steps) for _, seconds, steps in self.spans if seconds / steps <= OUTLIER * usual]
            return sum(seconds for seconds, _ in kept) / sum(steps for _, steps in kept)
        if self.steps:
            return self.seconds / self.steps
        return min(self.first) if len(self.first) == FIRST_STEPS else None

    def seconds_left(self) -> float | None:
        """Of training, validations and the test together; None if nothing is known yet."""
        a_step = self.seconds_a_step()
        if a_step is None:
            return None
        plan = self.plan
        validation = self.validation
        if validation is None:  # the first scores take longer, so of two the shorter
            validation = plan.validation * (statistics.median_low(self.scores) if self.scores else 0.0)
        steps = plan.meta_steps - self.step
        return steps * a_step + (validations(plan, self.validated) + plan.testing) * validation


def validations(plan: Plan, after: int) -> int:
    """How many validations there are after this step."""
    if after >= plan.meta_steps:
        return 0
    return -(-plan.meta_steps // plan.validate_every) - after // plan.validate_every
