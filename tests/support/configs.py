"""A small config, ways to write it wrong, and what is asked of every error."""

import re

import pytest

from emergence.config import loading as config
from emergence.errors import UsageError

BASE = """\
name: small
model: somewhere/model
training:
  max_steps: 100
  checkpoint_steps: [0, 50, 100]
  training_methods:
    sft: {method: sft}
    shuffled: {method: shuffled}
    classified:
      method: classified
parameters:
  num_samples: 90
  task_vocabulary:
    add: [add, plus, "+"]
    subtract: [subtract, minus, "-"]
    multiply: [multiply, times, "*"]
"""


def edited(old: str, new: str) -> str:
    assert old in BASE
    return BASE.replace(old, new, 1)


def refused(text: str, **overrides: object) -> list[str]:
    """The lines of the error; each is printable and says where."""
    with pytest.raises(UsageError) as error:
        config.parse(text, {k.replace("__", "."): v for k, v in overrides.items()}, "config.yaml")
    lines = str(error.value).split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(re.match(r"config\.yaml(:\d+)?: |-p ", line) for line in lines)
    assert all(len(line) < 400 for line in lines)
    return lines


def training(line: str) -> str:
    return edited("training:\n", f"training:\n  {line}\n")


def parameters(line: str) -> str:
    return edited("parameters:\n", f"parameters:\n  {line}\n")


def sft(settings: str) -> str:
    return edited("{method: sft}", f"{{{settings}}}")


def classified(line: str) -> str:
    return edited("method: classified", f"method: classified\n      {line}")


def field(line: str, value: str) -> str:
    """The base config with the line of a field written otherwise."""
    key = line.split(":")[0]
    where = re.search(rf"^( *){key}: .*\n", BASE, re.MULTILINE)
    assert where
    return BASE.replace(where.group(0), f"{where.group(1)}{key}: {value}\n", 1)
