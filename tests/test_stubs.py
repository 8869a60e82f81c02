# SPDX-License-Identifier: GPL-2.0-only
"""The stubs agree with the compiled modules: the same names, arguments and defaults. `tox -e types` asks mypy's stubtest, too."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import ksm

PACKAGE = Path(ksm.__file__).parent
STUBS = sorted(path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.pyi"))
NAMES = [".".join(("ksm", *path.parts)) for path in STUBS]


def module_and_stub(name):
    module = importlib.import_module(name)
    return module, ast.parse((PACKAGE / Path(*name.split(".")[1:])).with_suffix(".pyi").read_text())


def is_public(name):
    return not name.startswith("_")


def members(body):
    """{name: nodes} of what a module or a class defines; a property has one node for each of its functions."""
    found = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.AnnAssign):
            found.setdefault(node.target.id, []).append(node)
    return {name: nodes for name, nodes in found.items() if is_public(name)}


def defined_here(module):
    """The public names of a module without the names that it imports."""
    for name, value in vars(module).items():
        home = getattr(value, "__module__", module.__name__)
        if is_public(name) and not inspect.ismodule(value) and home == module.__name__:
            yield name


def arguments(function):
    """A function's arguments as (name, kind, default), from the stub's node or the real thing."""
    if not isinstance(function, ast.FunctionDef):
        return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]
    given, empty, kinds = function.args, inspect.Parameter.empty, inspect.Parameter
    plain = given.posonlyargs + given.args
    defaults = [empty] * (len(plain) - len(given.defaults)) + [ast.literal_eval(each) for each in given.defaults]
    found = [(each.arg, kinds.POSITIONAL_OR_KEYWORD, value) for each, value in zip(plain, defaults, strict=True)]
    for each, value in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        found.append((each.arg, kinds.KEYWORD_ONLY, empty if value is None else ast.literal_eval(value)))
    return found


def is_property(node):
    return isinstance(node, ast.FunctionDef) and bool(node.decorator_list)


def test_there_is_a_stub_for_each_compiled_module_that_python_code_calls():
    face = {"ksm.machine", "ksm.process", "ksm.sysfs", "ksm.trace", "ksm.views", "ksm.check.invariants"}
    command = {"ksm.estimate.savings", "ksm.sources.pagemap", "ksm.sources.huge"}
    assert face | command <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    module, stub = module_and_stub(name)
    assert set(members(stub.body)) == set(defined_here(module))


@pytest.mark.parametrize("name", NAMES)
def test_functions(name):
    module, stub = module_and_stub(name)
    for function, [node, *_] in members(stub.body).items():
        if isinstance(node, ast.FunctionDef):
            assert arguments(node) == arguments(getattr(module, function)), function


@pytest.mark.parametrize("name", NAMES)
def test_classes(name):
    module, stub = module_and_stub(name)
    for class_name, [node, *_] in members(stub.body).items():
        if not isinstance(node, ast.ClassDef):
            continue
        real, described = getattr(module, class_name), members(node.body)
        if issubclass(real, tuple):
            assert tuple(described) == real._fields
            continue
        ours = {member for member in vars(real) if is_public(member)}
        if real is ksm.Ksm:
            with ksm.Machine("1M") as machine:
                ours.update(machine.ksm.names())
        assert set(described) == ours
        for member, [first, *_] in described.items():
            if isinstance(first, ast.FunctionDef) and not is_property(first):
                assert arguments(first) == arguments(getattr(real, member)), member


@pytest.mark.parametrize("name", NAMES)
def test_constructors(name):
    module, stub = module_and_stub(name)
    for class_name, [node, *_] in members(stub.body).items():
        if isinstance(node, ast.ClassDef) and not issubclass(getattr(module, class_name), tuple):
            own = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name in ("__init__", "__new__")]
            described = arguments(own[0])[1:] if own else []
            assert arguments(getattr(module, class_name)) == described, class_name


def test_a_machine_takes_what_its_stub_says():
    _, stub = module_and_stub("ksm.machine")
    [node] = members(stub.body)["Machine"]
    [constructor] = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    [_, *described] = arguments(constructor)
    with ksm.Machine(**{name: default for name, _, default in described}):
        pass


def test_every_file_is_typed_and_can_be_set_where_the_kernel_lets_it():
    _, stub = module_and_stub("ksm.sysfs")
    [node] = members(stub.body)["Ksm"]
    properties = {name: nodes for name, nodes in members(node.body).items() if is_property(nodes[0]) and name not in vars(ksm.Ksm)}
    with ksm.Machine("1M") as machine:
        assert list(properties) == machine.ksm.names()
        for name, nodes in properties.items():
            value = getattr(machine.ksm, name)
            [getter, *setter] = map(ast.unparse, nodes)
            assert isinstance(value, str) == ("Literal[" in getter)
            try:
                setattr(machine.ksm, name, value)
            except AttributeError:
                assert not setter, name
            else:
                assert setter, name
