"""Find a function's source text without importing it, and read its docstring and its traits.

So `fmaml show` and messages about mistakes need not wait for torch, which takes more than a second to import, and run
no outside code.
"""

import ast
import sys
from collections.abc import Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from pathlib import Path

from ..errors import Error
from ..setting_types import IMPLIED, TRAITS


@cache
def parse_file(path: Path) -> ast.Module:
    """The syntax tree of a Python file; Error if it cannot be read or parsed."""
    try:
        return ast.parse(path.read_bytes())
    except OSError as error:
        raise Error(f"{path} cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else f": {error}"
        raise Error(f"{path}{line}; correct the file") from None


def source_file(module: str) -> Path:
    """Find the source file of ``module``, in the current folder or installed, without importing it.

    Raises Error if there is none.
    """
    search, found = None, None
    for name in accumulate(module.split("."), lambda package, part: f"{package}.{part}"):
        loaded = sys.modules.get(name)  # a folder of the same name here must not replace fmaml itself
        found = loaded.__spec__ if loaded else find_spec(name, search)
        if found is None:
            raise Error(
                f"there is no module {name} in the current folder or installed; give package.module:function, without "
                f".py, and run the command in the folder that holds it"
            )
        search = found.submodule_search_locations or []
    if found is None or not found.has_location or not str(found.origin).endswith(".py"):
        raise Error(f"{module} has no Python source file to read settings from; give a module that has one")
    return Path(str(found.origin))


def find_spec(module: str, search: Sequence[str] | None) -> ModuleSpec | None:
    """The spec of a module in the folders ``search``. None searches the current folder, then installed packages.

    `importlib.util.find_spec` would import the parent packages.
    """
    here = PathFinder.find_spec(module, [""]) if search is None else None
    try:
        return here or next(filter(None, (finder.find_spec(module, search) for finder in sys.meta_path)), None)
    except KeyError:  # a folder without __init__.py, in a package that is not imported
        found = ModuleSpec(module, None, is_package=True)
        found.submodule_search_locations = [str(Path(place, module.rpartition(".")[2])) for place in search or ()]
        return found


def find_function(target: str) -> ast.FunctionDef:
    """The syntax tree of a function such as "fmaml.nn.conv4:conv4"; Error if there is none."""
    module, _, name = target.partition(":")
    path = source_file(module)
    functions = {node.name: node for node in parse_file(path).body if isinstance(node, ast.FunctionDef)}
    if name not in functions:
        known = f", such as {next(iter(functions))}" if functions else ""
        raise Error(f"{path} defines no function {name} at its top level; give one that it defines{known}")
    return functions[name]


def declared_traits(function: ast.FunctionDef, word: str) -> frozenset[str]:
    """The traits in a decorator ``@gives(...)`` or ``@needs(...)``, and those they imply; Error for a wrong one."""
    found: set[str] = set()
    for node in function.decorator_list:
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == word:
            for argument in [*node.args, *node.keywords]:
                trait = argument.value if isinstance(argument, ast.Constant) else None
                if trait not in TRAITS:
                    raise Error(
                        f"{function.name}(), line {node.lineno}: @{word} takes traits of the tasks, as text: "
                        f"{', '.join(TRAITS)}; {ast.unparse(argument)} is none of them"
                    )
                found |= {str(trait), IMPLIED.get(str(trait), str(trait))}
    return frozenset(found)


def module_docstring(target: str) -> str:
    """The docstring of the module in ``target``."""
    return ast.get_docstring(parse_file(source_file(target.partition(":")[0]))) or ""


def summary(documented: ast.FunctionDef | type) -> str:
    """The first line of the docstring."""
    text = ast.get_docstring(documented) if isinstance(documented, ast.FunctionDef) else documented.__doc__
    return (text or "").partition("\n")[0].replace("``", "")
