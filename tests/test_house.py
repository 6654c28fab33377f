"""The house holds: floors, sizes, light imports, and documents whose code runs."""

import ast
import contextlib
import graphlib
import importlib
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import types
import warnings
from pathlib import Path

import grimp
import pytest

import unnoise
from unnoise.registry import Registry

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src/unnoise").rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"`(src/[^`]+\.py)`\s+```python\n(.*?)```\s+`(tests/[^`]+\.py)`\s+```python\n(.*?)```", re.DOTALL)

MOST_LINES, MANY_LINES, MOST_FUNCTION_LINES = 600, 400, 80


def modules():
    """The names of all modules of the package."""
    return ["unnoise", *(m.name for m in pkgutil.walk_packages(unnoise.__path__, "unnoise."))]


def fresh(code, *arguments):
    """What a fresh interpreter prints that runs `code`."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# The floors


def test_imports_point_down_the_floors():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_imports_itself_in_a_circle():
    graph = grimp.build_graph("unnoise", cache_dir=None)
    # The package itself names its public face lazily, and is no circle.
    imports = {m: graph.find_modules_directly_imported_by(m) - {"unnoise"} for m in graph.modules - {"unnoise"}}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_members_import_the_base_of_their_room_and_not_the_room():
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        if path.name not in ("__init__.py", "__main__.py") and path.parent.name != "unnoise"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module is None
        for name in node.names
        if not (path.parent / f"{name.name}.py").exists() and not (path.parent / name.name).is_dir()
    ]
    assert not wrong, wrong


def test_every_module_imports():
    for name in modules():
        if name != "unnoise.__main__":
            importlib.import_module(name)


# Light imports


@pytest.mark.parametrize(
    "statements",
    [
        # What is loaded after each statement must not be among what its line names.
        {
            "import unnoise": "torch numpy PIL pyarrow yaml pydantic typer rich matplotlib tensorboard",
            "unnoise.load": "pyarrow typer rich matplotlib tensorboard",
            "unnoise.train": "typer rich matplotlib tensorboard",
        },
        {"import unnoise.cli.main": "torch pyarrow matplotlib tensorboard"},
    ],
    ids=["the package", "the command line"],
)
def test_an_import_loads_only_what_it_needs(statements):
    told = "print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = fresh("import sys\n" + "\n".join(f"{code}\n{told}\nprint(';')" for code in statements))
    for (code, absent), found in zip(statements.items(), " ".join(loaded).split(";"), strict=False):
        assert not set(absent.split()) & set(found.split()), code


TRAINS_AND_SAMPLES = """
import sys, unnoise
short = {"training__steps": 2, "training__validation_size": 16, "training__sample_every": 0, "network__width": 16}
unnoise.train("digits", sys.argv[1], progress=False, **short).sample(2, steps=2)
print("torch._dynamo" in sys.modules)
"""


def test_no_compiler_is_imported_before_one_is_asked_for(tmp_path):
    assert fresh(TRAINS_AND_SAMPLES, tmp_path / "run") == ["False"]


def test_unnoise_imports_in_a_third_of_a_second_over_torch():
    # The time of the processor, which other programs on the machine hardly lengthen.
    code = "import torch, time\nstart = time.process_time()\nimport unnoise\nprint(time.process_time() - start)"
    assert any(float(fresh(code)[0]) <= 0.3 for _ in range(3))


def test_the_version_is_that_of_the_project_file():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert unnoise.__version__ == declared[1]


# Sizes and docstrings


def test_no_file_is_too_long():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    long = [f"{path} has {n} lines" for path, n in lengths.items() if n > MOST_LINES]
    assert not long, long
    for path, n in lengths.items():
        if n > MANY_LINES:
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn(f"{path} has {n} lines; more than {MANY_LINES} are hard to read", stacklevel=1)


def test_no_function_is_too_long():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MOST_FUNCTION_LINES
    ]
    assert not long, long


def registries():
    """Every registry of the package, with where it stands."""
    found = {}
    for name in modules():
        if name.rpartition(".")[2] == "base":
            for key, value in vars(importlib.import_module(name)).items():
                if isinstance(value, Registry):
                    found[f"{name}.{key}"] = value
    return found


@pytest.mark.parametrize("where", registries())
def test_every_registered_part_says_what_it_is(where):
    for name, cls in registries()[where].items():
        assert sys.modules[cls.__module__].__doc__, f"the module of {name} has no docstring"
        assert "__doc__" in vars(cls), f"{cls.__name__} has no docstring"
        assert not (cls.__doc__ or "").startswith(f"{cls.__name__}("), f"{cls.__name__} has no docstring"


# Files


def tracked():
    """The text files that belong to the repository, or None where this is not a checkout."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    return [path for name in names if name and (path := ROOT / os.fsdecode(name)).is_file()]


def test_no_file_names_a_place_on_one_machine():
    files = tracked()
    if files is None:
        pytest.skip("not a git checkout")
    place = re.compile(r"(?<![\w.-])/(?:home|root|Users|work|opt|mnt)/\w+")
    wrong = []
    for path in files:
        with contextlib.suppress(UnicodeDecodeError):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if match := place.search(line):
                    wrong.append(f"{path.relative_to(ROOT)}:{number} {match[0]}")
    assert not wrong, wrong


# Documents


def test_python_in_the_documents_compiles():
    for path in DOCUMENTS:
        for language, code in FENCE.findall(path.read_text()):
            if language in ("python", "py"):
                compile(code, str(path.relative_to(ROOT)), "exec")


def documented_commands():
    """Every line of a shell block of the documents that starts with `unnoise`, continuation lines joined."""
    return [
        line.strip().removeprefix("$ ").partition(" #")[0].strip()
        for path in DOCUMENTS
        for language, code in FENCE.findall(path.read_text())
        if language in ("sh", "bash", "shell", "console")
        for line in code.replace("\\\n", " ").splitlines()
        if re.match(r"\s*(\$ )?unnoise\b", line)
    ]


@pytest.mark.parametrize("line", sorted(set(documented_commands())))
def test_the_commands_in_the_documents_exist(line):
    from typer.main import get_command

    from unnoise.cli.main import app

    command, words = get_command(app), shlex.split(line)[1:]
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    known = {"--help", *(flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts))}
    unknown = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} - known
    assert not unknown, f"there is no option {', '.join(sorted(unknown))}"


EXAMPLES = EXAMPLE.findall((ROOT / "CONTRIBUTING.md").read_text())


def test_contributing_has_an_example_for_each_kind_of_part():
    rooms = {Path(source).parent.name for source, *_ in EXAMPLES}
    assert rooms == {"process", "samplers", "denoisers", "data", "guidance", "nn", "metrics"}


@pytest.mark.parametrize(("source", "code", "test_path", "test"), EXAMPLES, ids=[Path(e[0]).stem for e in EXAMPLES])
def test_the_examples_of_contributing_run(source, code, test_path, test, monkeypatch):
    assert not (ROOT / source).exists(), f"{source} exists: give CONTRIBUTING.md another example"
    name = source.removeprefix("src/").removesuffix(".py").replace("/", ".")
    room, _, stem = name.rpartition(".")
    registry = next(r for r in registries().values() if r.package == room)
    list(registry)  # so that the room is complete before the example joins it
    monkeypatch.setattr(registry, "_members", dict(registry._members))
    module = types.ModuleType(name)
    module.__package__ = room
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(code, source, "exec"), vars(module))
    assert module.__doc__
    assert stem in registry
    space = {}
    exec(compile(test, test_path, "exec"), space)
    tests = [function for key, function in space.items() if key.startswith("test_")]
    assert tests
    for function in tests:
        function()
