"""The version of the installed package, from its metadata."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("theframework")
except PackageNotFoundError:  # the sources on the path, not installed
    __version__ = "0.0.0"
