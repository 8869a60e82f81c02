# SPDX-License-Identifier: GPL-2.0-only
"""inspect.signature() and help() know every public class, method, attribute and function."""

import importlib
import importlib.util
import inspect
import pkgutil
import pydoc
import re
import types

import pytest

import ksm

# Their own words are enough: what Python says of them is what they do.
COMMON = {"__enter__", "__exit__"}


def compiled_modules():
    for found in pkgutil.walk_packages(ksm.__path__, "ksm."):
        if found.name.split(".")[1] == "testing" or found.name.endswith("__main__"):
            continue
        # Others may need packages that are not installed.
        if importlib.util.find_spec(found.name).origin.endswith(".so"):
            yield importlib.import_module(found.name)


def public():
    """(name, object) of all that a compiled module defines for Python, classes with their members."""
    for module in compiled_modules():
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__ or not callable(value):
                continue
            yield f"{module.__name__}.{name}", value
            if inspect.isclass(value) and not issubclass(value, tuple):
                for member, what in vars(value).items():
                    if not member.startswith("_") or member in COMMON:
                        yield f"{module.__name__}.{name}.{member}", what


PUBLIC = dict(public())
CALLABLE = [name for name, value in PUBLIC.items() if callable(value)]


def test_the_face_is_among_them():
    assert {"ksm.machine.Machine", "ksm.process.Process", "ksm.sysfs.Ksm", "ksm.trace.Trace", "ksm.machine.Machine.spawn",
            "ksm.process.Process.mmap", "ksm.sysfs.Ksm.scan", "ksm.machine.parse_size", "ksm.machine.Machine.era"} <= set(PUBLIC)


@pytest.mark.parametrize("name", CALLABLE)
def test_signature(name):
    signature = inspect.signature(PUBLIC[name])
    if not inspect.isclass(PUBLIC[name]) and name.count(".") == 3 and name.split(".")[2][0].isupper():
        assert next(iter(signature.parameters)) == "self"


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name):
    home, _, short = name.rpartition(".")
    if isinstance(PUBLIC[name], types.GetSetDescriptorType) and not PUBLIC[name].__doc__:
        assert re.search(rf"\b{short}\b", PUBLIC[home].__doc__), "neither its own words nor a word of its class"
    elif short not in COMMON:
        assert inspect.getdoc(PUBLIC[name])


@pytest.mark.parametrize("name", [name for name in CALLABLE if inspect.isclass(PUBLIC[name])])
def test_help(name):
    text = pydoc.render_doc(PUBLIC[name], renderer=pydoc.plaintext)
    short = name.rpartition(".")[2]
    assert f"{short}(" in text and "\n--\n" not in text
    for member in PUBLIC:
        if member.startswith(f"{name}."):
            assert member.rpartition(".")[2] in text, member


def test_the_signature_of_a_machine_is_the_one_that_it_has():
    parameters = inspect.signature(ksm.Machine).parameters
    assert next(iter(parameters)) == "memory"
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in list(parameters.values())[1:])
    with ksm.Machine("1M", **{name: each.default for name, each in parameters.items() if name != "memory"}) as machine:
        assert machine.clock == parameters["clock"].default and machine.era == parameters["era"].default
        assert machine.nodes == parameters["nodes"].default
    with pytest.raises(TypeError):
        ksm.Machine(**dict.fromkeys([*parameters, "more"]))


def test_a_process_cannot_be_made_as_its_signature_says():
    assert not inspect.signature(ksm.Process).parameters
    with pytest.raises(TypeError, match="spawn"):
        ksm.Process()
