"""Switches the fixtures of `emergence` on, as a repository of someone else does, with the one line below."""

pytest_plugins = ["emergence.fixtures"]
