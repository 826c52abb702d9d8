"""Find sentences that are too long, and phrases that our style bans: `python tests/prose.py [FILE ...]` lists them.

It reads docstrings, comments, error messages and help texts of Python files, comments of experiments, and the prose of
pages and notebooks. CONTRIBUTING.md explains the rules; `prose_exceptions.txt` lists the exceptions.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
MAX_WORDS = 25
BANNED = [
    r"nobody has",
    r"in somebody's hands",
    r"nothing hangs on",
    r"goes? on as (it|they) (was|were)",
    r"that (is|was|are|were) told",
    r"whose",
    r"(of|by) (which|whom)",
    r"(?<!\? )what (is|are|was|were|has|had|does|do|it|they|he|she|one|a|an|the|its|their|this|that|we)",
    r"what [a-z]+s (it|them|the|a|an|in|to|no|not|from|by|for)",
    r"all (else )?that (is|are|was|were)",
    r"(this|that|it) is not to say",
    r"by (the )?name of",
    r"in the place of",
    r"at whatever",
    r"let (it|them) be",
    r"(has|have) (it|them) that",
]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md", "docs/**/*.ipynb", "examples/**/*.md"]
CODE = ["fmaml/**/*.py", "examples/**/*.py", "benchmarks/**/*.py"]
CONFIGS = ["fmaml/experiments/**/*.yaml"]


class Fault(NamedTuple):
    """A sentence that breaks a rule."""

    file: str
    line: int
    rule: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.sentence}"


def faults_in(path: Path) -> list[Fault]:
    """The faults of one file, in its order."""
    name = path.relative_to(ROOT).as_posix()
    return [
        Fault(name, line, rule, sentence)
        for line, text in passages(path)
        for sentence in sentences(text)
        for rule in broken_rules(sentence)
    ]


def broken_rules(sentence: str) -> Iterator[str]:
    """The rules that a sentence breaks."""
    words = [word for word in sentence.split() if re.search(r"\w", word)]
    if len(words) > MAX_WORDS:
        yield f"{len(words)} words"
    for phrase in BANNED:
        if found := re.search(rf"\b{phrase}\b", sentence, re.IGNORECASE):
            yield f'"{found.group()}"'


def sentences(text: str) -> list[str]:
    """The sentences of a text. A blank line, a list item and a colon at the end of a line end one, too."""
    text = re.sub(r"(``?).+?\1", "code", text, flags=re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # a link is its text
    text = re.sub(r"\[\^\w+\]:?", "", text)  # marks of footnotes
    text = re.sub(r"\b(e\.g|i\.e|cf|vs|et al|Eq|eq|No|fig|Fig)\.", r"\1", text)
    parts = re.split(r"\n\s*\n|\n\s*(?:[-*+]|\d+\.|#+)\s|:\s*\n|(?<=[.!?])[\"')*_]*\s+", text)
    return [" ".join(part.split()).removeprefix("- ") for part in parts if part and part.strip()]


def passages(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a file that people read, each with its line."""
    if path.suffix == ".py":
        return python_passages(path.read_text(encoding="utf-8"))
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        return (found for text in texts for found in page_passages(text))
    if path.suffix == ".yaml":
        return comments(path.read_text(encoding="utf-8"), lambda line: line.partition("#")[2])
    return page_passages(path.read_text(encoding="utf-8"))


def page_passages(page: str) -> Iterator[tuple[int, str]]:
    """Paragraphs and cells of tables of a page in Markdown, without its code and lines of HTML."""
    code = False
    paragraph: list[str] = []
    for number, line in enumerate([*page.splitlines(), ""], 1):
        if line.lstrip().startswith("```"):
            code = not code
        if code or not line.strip() or line.lstrip().startswith(("|", "```", "<")):
            if paragraph:
                yield number - len(paragraph), "\n".join(paragraph)
            paragraph = []
            if not code and line.lstrip().startswith("|"):
                yield from ((number, cell) for cell in line.split("|"))
        else:
            paragraph.append(line)


def python_passages(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings, messages and comments."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                yield getattr(node, "lineno", 1), without_examples(text)
        elif isinstance(node, ast.Raise | ast.Call):
            yield from ((node.lineno, text) for text in messages(node))
    yield from comments_of_code(source)


def without_examples(docstring: str) -> str:
    """A docstring without the examples after >>>, formulas and code, which are indented by four more."""
    kept = [line for line in docstring.splitlines() if not re.match(r"\s*(>>>|\.\.\.)|.*\s=\s", line)]
    return re.sub(r"\n\s+(\*{0,2}\w+(, \*{0,2}\w+)*: )", r"\n\n\1", "\n".join(kept))  # each argument by itself


def messages(node: ast.Raise | ast.Call) -> Iterator[str]:
    """The message of an exception that is raised, of a note, or of a help text."""
    if isinstance(node, ast.Raise):
        call = node.exc
        if isinstance(call, ast.Call):
            yield from filter(None, map(spelt, call.args))
        return
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    if name in ("note", "notify", "say", "warn"):
        yield from filter(None, map(spelt, node.args))
    yield from filter(None, (spelt(keyword.value) for keyword in node.keywords if keyword.arg == "help"))


def spelt(node: ast.expr) -> str | None:
    """A text that is written out, with "x" for every value in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(spelt(part) or "x" for part in node.values)
    return None


def comments_of_code(source: str) -> Iterator[tuple[int, str]]:
    """Comments; those that fill lines, one after the other, are one text."""
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
    texts = [(token, token.string.lstrip("#: ")) for token in tokens]
    prose = [(token, text) for token, text in texts if not re.match(r"pyright|noqa|type:|ruff", text)]
    beside_code = {token.start[0] for token, _ in prose if token.line[: token.start[1]].strip()}
    yield from ((token.start[0], text) for token, text in prose if token.start[0] in beside_code)
    yield from joined_lines({token.start[0]: text for token, text in prose if token.start[0] not in beside_code})


def comments(text: str, comment_of: Callable[[str], str]) -> Iterator[tuple[int, str]]:
    """The comments of a configuration."""
    lines = {number: comment_of(line).strip() for number, line in enumerate(text.splitlines(), 1)}
    lines = {n: re.sub(r"^(?=[a-z]+ {2})|(?<=\S) {3,}", "\n\n", line) for n, line in lines.items()}  # fields, columns
    yield from joined_lines({number: line for number, line in lines.items() if line})


def joined_lines(lines: dict[int, str]) -> Iterator[tuple[int, str]]:
    """Lines by number, where neighbours are one text."""
    starts = [number for number in sorted(lines) if number - 1 not in lines]
    for start in starts:
        run = takewhile(lines.__contains__, count(start))
        yield start, "\n".join(lines[number] for number in run)


def checked_files() -> list[Path]:
    """Every file that the rules hold for."""
    return sorted({path for pattern in PAGES + CODE + CONFIGS for path in ROOT.glob(pattern)})


if __name__ == "__main__":
    found = [fault for path in map(Path.resolve, map(Path, sys.argv[1:])) for fault in faults_in(path)]
    found = found if sys.argv[1:] else [fault for path in checked_files() for fault in faults_in(path)]
    print(*found, f"{len(found)} faults", sep="\n")
    sys.exit(bool(found))
