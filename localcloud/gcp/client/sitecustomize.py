"""Lets aiohttp take proxies from the environment, as all of Google's other clients do.

With this folder on PYTHONPATH, Python itself imports this at its start. It costs nothing where aiohttp is not imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

MODULE = "aiohttp.client"


class _Loader(importlib.abc.Loader):
    """Loads a module as another loader does, and changes its sessions then."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _trust(module)


class _Finder(importlib.abc.MetaPathFinder):
    of_local_cloud = True  # this file is imported by several names, and others have finders of this name too

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            spec.loader = _Loader(spec.loader)
        return spec


def _trust(module: Any) -> None:
    """Sessions take proxies from the environment, unless their maker says otherwise."""
    make = module.ClientSession.__init__

    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **{"trust_env": True, **kwargs})

    module.ClientSession.__init__ = made


def _install() -> None:
    if any(getattr(finder, "of_local_cloud", False) for finder in sys.meta_path):
        return
    if MODULE in sys.modules:
        _trust(sys.modules[MODULE])
    sys.meta_path.insert(0, _Finder())


def _run_the_next() -> None:
    """This file hides the `sitecustomize` that the environment itself may have."""
    here = Path(__file__).resolve().parent
    rest = [entry for entry in sys.path if not entry or Path(entry).resolve() != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec and spec.loader and spec.origin != __file__:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


_install()
if __name__ == "sitecustomize":
    _run_the_next()
