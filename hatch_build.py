"""Puts compiled modules into the wheel, so that the shim's first start is fast too.

pip compiles what it installs; uv does not. A wheel that is built on the machine that
uses it (from git or a folder) brings the right `.pyc` files with it; another Python
ignores them. They are hash-based and unchecked, because an installer does not keep a
source file's time.
"""

from __future__ import annotations

import py_compile
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PACKAGES = ("proto/holdfast", "daemon/holdfast_daemon", "shim/holdfast_shim")


class CompileHook(BuildHookInterface[Any]):
    """Compiles the three packages into a temporary folder and adds the result."""

    PLUGIN_NAME = "custom"

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add `__pycache__` files to a wheel; an editable one has none."""
        if self.target_name != "wheel" or version != "standard":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-build-")
        folder = Path(self._folder.name)
        tag = sys.implementation.cache_tag
        for package in _PACKAGES:
            root = Path(self.root) / package
            for source in sorted(root.rglob("*.py")):
                inside = source.relative_to(root.parent)
                name = inside.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
                py_compile.compile(
                    str(source),
                    cfile=str(folder / name),
                    dfile=str(inside),
                    doraise=True,
                    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                )
                build_data["force_include"][str(folder / name)] = str(name)

    def finalize(
        self, version: str, build_data: dict[str, Any], artifact_path: str
    ) -> None:
        """Remove the temporary folder once the wheel is written."""
        if self._folder is not None:
            self._folder.cleanup()
