"""A `config.yaml` to an `Experiment`: every default filled in, every rule checked, all problems told at once.

In: a file, and `-p` overrides that beat it. Out: frozen models, nothing in which is optional. What a file may
say is `layout`; how its text is read is `yaml_strict`. The config of `lazarus experiment` is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from . import layout, overrides, tasks, yaml_strict
from .errors import UsageError
from .yaml_strict import Document, printable

NONE: Mapping[str, object] = MappingProxyType({})


class _Settled(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoRA(_Settled):
    """Low-rank adapters on the named layers of the last `num_layers` blocks (-1: of all)."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    num_layers: int = -1

    @property
    def scale(self) -> float:
        """What the update is multiplied by: mlx-lm's `scale`."""
        return self.alpha / self.rank


class Arm(_Settled):
    """One way to train; with a seed, a run."""

    name: str
    method: Literal["sft", "shuffled", "classified"] = "sft"
    fine_tune_type: Literal["lora", "dora", "full"] = "lora"
    learning_rate: float = 5e-4
    batch_size: int = 16
    max_steps: int = 300
    checkpoint_steps: tuple[int, ...] = (0, 25, 50, 100, 150, 200, 300)
    """Ascending, 0 first, none beyond `max_steps`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    lora: LoRA = LoRA()
    classifier_weight: float = 0.7
    classifier_layer_pct: float = 0.54
    classifier_targets: dict[str, str] = {}
    """Class to the word that a `classified` arm is taught to read out at `classifier_layer_pct`."""


class Task(_Settled):
    """The problems: counts are per class."""

    operations: tuple[str, ...]
    operands: dict[str, tuple[int, int]]
    styles: tuple[str, ...] = ("symbolic",)
    """Trained on."""
    read_styles: tuple[str, ...] = ("symbolic", "worded")
    """Read at every checkpoint."""
    num_train: int = 600
    num_valid: int = 30
    num_test: int = 60
    seed: int = 0


class TestPrompt(_Settled):
    """A prompt to show, as it was written, with its checked answer."""

    __test__: ClassVar[bool] = False

    operation: str
    prompt: str
    expected: str

    @property
    def problem(self) -> tasks.Problem:
        """What it asks."""
        return tasks.parse(self.prompt)[0]

    @property
    def style(self) -> str:
        """How it asks."""
        return tasks.parse(self.prompt)[1]


class Experiment(_Settled):
    """All that a config decides."""

    name: str
    description: str
    model: str
    arms: tuple[Arm, ...]
    """The enabled ones, a `shuffled` control always among them."""
    task: Task
    vocabulary: dict[str, tuple[str, ...]]
    """Class to words and glyphs as written, numbers left out."""
    test_prompts: tuple[TestPrompt, ...] = ()
    notices: tuple[str, ...] = ()
    """What was read otherwise than one might think, a line each."""

    def arm(self, name: str) -> Arm:
        """The arm of that name; raises `UsageError` with the known ones."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        hint = overrides.did_you_mean(name, [a.name for a in self.arms])
        raise UsageError(
            f"unknown arm {name!r}{hint}; this config has {', '.join(a.name for a in self.arms)}"
        )

    @property
    def hash(self) -> str:
        """The first 12 hex digits of SHA-256 over all fields but the notices, as canonical JSON."""
        fields = self.model_dump(mode="json", exclude={"notices"})
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def load(path: Path, overrides: Mapping[str, object] = NONE) -> Experiment:
    """The experiment that a file describes; `overrides` are dotted (`training.lora.rank`), text is read as YAML.

    Raises `UsageError`, a line for each problem with file:line, field, value and remedy.
    """
    document = _read(path)
    return resolve(document, overrides)


def parse(text: str, overrides: Mapping[str, object] = NONE, name: str = "config") -> Experiment:
    """As `load`, from a text."""
    try:
        document = yaml_strict.read(text.encode("utf-8", "surrogatepass"), name, _as_text)
    except yaml_strict.Refused as error:
        raise UsageError(str(error)) from None
    return resolve(document, overrides)


def parse_override(text: str) -> tuple[str, str]:
    """`training.lora.rank=8` as name and value; raises `UsageError` where there is no `=`."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"-p {printable(text)}: write it as name=value, such as training.lora.rank=8")
    return name.strip(), value.strip()


def narrowed(experiment: Experiment, steps: str | None = None, seeds: int | None = None) -> Experiment:
    """Every arm with other checkpoints and seeds: `steps` is the last one, `300`, or all of them, `0,50,300`.

    One number keeps the checkpoints before it. `seeds` is how many, counted from 0. Raises `UsageError`.
    """
    arms = [_narrowed(arm, _steps(steps), seeds) for arm in experiment.arms]
    return experiment.model_copy(update={"arms": tuple(arms)})


def _narrowed(arm: Arm, steps: tuple[int, ...], seeds: int | None) -> Arm:
    update: dict[str, Any] = {}
    if steps:
        kept = steps if len(steps) > 1 else [*(s for s in arm.checkpoint_steps if s < steps[0]), *steps]
        update = {"checkpoint_steps": tuple(sorted({0, *kept})), "max_steps": max(kept)}
    if seeds is not None:
        if not 1 <= seeds <= 100:
            raise UsageError(f"--seeds {seeds}: name how many, 1 to 100")
        update["seeds"] = tuple(range(seeds))
    return arm.model_copy(update=update)


def _steps(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    words = [w.strip() for w in text.split(",")]
    if not all(w.isascii() and w.isdecimal() and len(w) <= 8 for w in words):
        raise UsageError(f"--steps {printable(text)}: write whole numbers, such as 300 or 0,50,300")
    steps = tuple(int(w) for w in words)
    if list(steps) != sorted(set(steps)) or steps[-1] == 0:
        raise UsageError(f"--steps {printable(text)}: the steps must ascend and go beyond 0")
    return steps


def resolve(document: Document, given: Mapping[str, object]) -> Experiment:
    """The experiment in a document that has been read."""
    if not isinstance(document.data, dict):
        what = "empty" if document.data is None else f"a {type(document.data).__name__}, not a mapping"
        raise UsageError(
            f"{document.place(())}: the config is {what}; write name, model, training, parameters"
        )
    for path, line in list(document.lines.items()):
        document.lines.setdefault(tuple(layout.CLASS_NAMES.get(str(p), p) for p in path), line)
    notices = _move_to_parameters(document)
    notices += overrides.apply(document, given, _as_text)
    notices += _drop_unused(document)
    wrong = list(document.wrong)
    try:
        file = layout.Layout.model_validate(document.data)
    except ValidationError as error:
        wrong += overrides.explain(error, document)
    if wrong:
        raise UsageError("\n".join(dict.fromkeys(wrong)))
    resolver = _Resolver(document, file, notices)
    experiment = resolver.experiment()
    if resolver.wrong:
        raise UsageError("\n".join(resolver.wrong))
    return experiment


def _read(path: Path) -> Document:
    try:
        if not path.is_file():
            raise UsageError(f"{printable(str(path), 300)}: no such file; name an existing config.yaml")
        with path.open("rb") as stream:
            raw = stream.read(yaml_strict.LARGEST + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{printable(str(path), 300)}: cannot be read: {error}") from None
    try:
        return yaml_strict.read(raw, printable(str(path), 300), _as_text)
    except yaml_strict.Refused as error:
        raise UsageError(str(error)) from None


def _as_text(path: yaml_strict.Path) -> bool:
    """Fields whose value is the text that was written: the word `no`, the answer 56, the name 1e5."""
    if path[:1] == ("parameters",):
        path = path[1:]
    if path[:1] in (("name",), ("model",), ("description",), ("task_vocabulary",), ("test_prompts",)):
        return True
    return path[:2] == ("training", "training_methods") and path[3:4] == ("classifier_targets",)


def _move_to_parameters(document: Document) -> list[str]:
    """Unknown top-level keys are parameters, as lazarus has it, unless they look like a mistyped one of ours."""
    data, notices = document.data, []
    parameters = data.get("parameters")
    for key in [k for k in data if k not in layout.Layout.model_fields]:
        place = document.place((key,))
        if hint := overrides.did_you_mean(key, [*layout.Layout.model_fields]):
            document.wrong.append(f"{place}: {printable(key)}: unknown key{hint}")
        elif key in layout.Parameters.model_fields and isinstance(parameters, dict) and key not in parameters:
            parameters[key] = data[key]
            for path, line in list(document.lines.items()):
                if path[:1] == (key,):
                    document.lines.setdefault(("parameters", *path), line)
            notices.append(f"{place}: {key}: read as parameters.{key}")
        else:
            notices.append(f"{place}: {printable(key)}: not used here")
        del data[key]
    return notices


def _drop_unused(document: Document) -> list[str]:
    """Fields of lazarus configs without a meaning here."""
    training = document.data.get("training")
    sections: list[tuple[yaml_strict.Path, Any, tuple[str, ...]]] = [
        (("training",), training, layout.UNUSED["training"])
    ]
    methods = training.get("training_methods") if isinstance(training, dict) else None
    for name, arm in methods.items() if isinstance(methods, dict) else ():
        sections.append((("training", "training_methods", name), arm, layout.UNUSED["method"]))
    notices = []
    for path, section, names in sections:
        for name in names:
            if isinstance(section, dict) and name in section:
                del section[name]
                quiet = section.get("method") == "grpo"
                where = (*path, name)
                if not quiet:
                    notices.append(f"{document.place(where)}: {yaml_strict.dotted(where)}: not used here")
    return notices


class _Resolver:
    """Fills in what a valid file leaves open; collects what only the whole shows to be wrong."""

    def __init__(self, document: Document, file: layout.Layout, notices: list[str]) -> None:
        self.document, self.file, self.notices = document, file, notices
        self.wrong: list[str] = []

    def experiment(self) -> Experiment:
        """The experiment, to be thrown away if `wrong` is not empty."""
        file = self.file
        operations = self._operations()
        vocabulary = {op: self._words(op) for op in operations if op in file.parameters.task_vocabulary}
        self._overlap(vocabulary)
        arms = self._arms(operations, vocabulary)
        prompts = tuple(self._prompts(operations))
        task = self._task(operations, prompts)
        return Experiment(
            name=file.name,
            description=file.description,
            model=file.model,
            arms=arms,
            task=task,
            vocabulary=vocabulary,
            test_prompts=prompts,
            notices=tuple(self.notices),
        )

    def _say(self, path: yaml_strict.Path, what: str) -> None:
        self.wrong.append(f"{self.document.place(path)}: {yaml_strict.dotted(path)}: {what}")

    def _note(self, path: yaml_strict.Path, what: str) -> None:
        self.notices.append(f"{self.document.place(path)}: {yaml_strict.dotted(path)}: {what}")

    def _operations(self) -> tuple[str, ...]:
        p = self.file.parameters
        named = p.operations if p.operations is not None else list(p.task_vocabulary)
        for op in p.task_vocabulary:
            if op not in named:
                self._note(("parameters", "task_vocabulary", op), "not among the operations, left out")
        for op in named:
            if op not in p.task_vocabulary:
                self._say(("parameters", "task_vocabulary"), f"no words for the class {op}; add some")
        if len(named) < 2:
            self._say(
                ("parameters", "task_vocabulary"), f"{len(named)} class; a classifier tells at least 2 apart"
            )
        return tuple(op for op in tasks.OPERATIONS if op in named)

    def _words(self, operation: str) -> tuple[str, ...]:
        kept: list[str] = []
        for i, word in enumerate(self.file.parameters.task_vocabulary[operation]):
            path = ("parameters", "task_vocabulary", operation, i)
            bad = _unprintable(word)
            if bad is not None:
                self._say(path, f"{_show(word)} holds the character {bad}; write the word without it")
            elif word != word.strip():
                self._say(
                    path,
                    f"{_show(word)} has a space around it; write {word.strip()!r}, spaced variants are found",
                )
            elif word.isnumeric():
                self._note(path, f"{_show(word)} is a number and left out; answers come from each problem")
            elif word in kept:
                self._say(path, f"{_show(word)} is given twice; drop one")
            else:
                kept.append(word)
        if not any(any(c.isalpha() for c in word) for word in kept):
            path = ("parameters", "task_vocabulary", operation)
            self._say(path, f"no word for the class {operation}; add one, such as {operation}")
        return tuple(kept)

    def _overlap(self, vocabulary: dict[str, tuple[str, ...]]) -> None:
        owner: dict[str, str] = {glyph: op for op, glyph in tasks.GLYPHS.items()}
        for operation, words in vocabulary.items():
            for word in words:
                first = owner.setdefault(word.casefold(), operation)
                if first != operation:
                    path = ("parameters", "task_vocabulary", operation)
                    self._say(
                        path, f"{_show(word)} also belongs to {first}; a word can stand for one class only"
                    )

    def _task(self, operations: tuple[str, ...], prompts: tuple[TestPrompt, ...]) -> Task:
        p = self.file.parameters
        operands = {
            op: (int(low), int(high)) for op in operations for low, high in [p.operands.get(op, (2, 99))]
        }
        task = Task(
            operations=operations,
            operands=operands,
            styles=tuple(p.styles),
            read_styles=tuple(p.read_styles),
            num_train=p.num_samples // max(len(operations), 1),
            num_valid=p.num_valid,
            num_test=p.num_test,
            seed=p.seed,
        )
        for style in set(p.styles) - set(p.read_styles):
            self._say(("parameters", "read_styles"), f"{style} is trained on but not read; add it")
        if task.num_train < 1:
            self._say(("parameters", "num_samples"), f"{p.num_samples} is less than one a class; raise it")
        need = task.num_train + task.num_valid + task.num_test
        for op, (low, high) in operands.items():
            path = ("parameters", "operands", op)
            if op == "divide" and low == 0:
                self._say(path, f"[{low}, {high}] holds the divisor 0; begin at 1")
            elif short := tasks.shortage(op, low, high, need, [t.problem for t in prompts]):
                self._say(path, short)
        return task

    def _prompts(self, operations: tuple[str, ...]) -> Iterator[TestPrompt]:
        seen: set[str] = set()
        for operation, written in self.file.parameters.test_prompts.items():
            if operation not in operations:
                self._note(("parameters", "test_prompts", operation), "not among the operations, left out")
                continue
            for i, row in enumerate(written):
                path = ("parameters", "test_prompts", operation, i)
                try:
                    problem, style = tasks.parse(row.prompt)
                except UsageError as error:
                    self._say(path, str(error))
                    continue
                if row.prompt in seen:
                    self._say(path, f"{_show(row.prompt)} is given twice; drop one")
                elif problem.operation != operation:
                    self._say(path, f"{_show(row.prompt)} asks to {problem.operation}; move it there")
                elif row.expected is not None and row.expected.strip() != str(problem.answer):
                    self._say(
                        path,
                        f"the answer of {_show(row.prompt)} is {problem.answer}, not {_show(row.expected)}",
                    )
                elif style not in self.file.parameters.read_styles:
                    self._say(
                        path, f"{_show(row.prompt)} is {style}, which read_styles leaves out; add it there"
                    )
                else:
                    if row.prompt != problem.prompt(style):
                        self._note(
                            path, f"{_show(row.prompt)} is not what is trained on, {problem.prompt(style)!r}"
                        )
                    answer = str(problem.answer)
                    yield TestPrompt(operation=operation, prompt=row.prompt, expected=answer)
                seen.add(row.prompt)

    def _arms(self, operations: tuple[str, ...], vocabulary: dict[str, tuple[str, ...]]) -> tuple[Arm, ...]:
        training = self.file.training
        late = [s for s in training.checkpoint_steps if s > training.max_steps]
        if late:
            self._too_late(("training", "checkpoint_steps"), late, training.max_steps)
        methods = training.training_methods
        arms = [
            self._arm(name, written, operations, vocabulary)
            for name, written in methods.items()
            if written.enabled and self._usable(name, written)
        ]
        if not arms:
            if not self.wrong:
                self._say(("training", "training_methods"), "no arm is enabled; enable one")
            return ()
        return tuple(self._with_control(arms, operations, vocabulary))

    def _with_control(
        self, arms: list[Arm], operations: tuple[str, ...], vocabulary: dict[str, tuple[str, ...]]
    ) -> list[Arm]:
        """The shuffled control runs with every experiment, whatever the file says."""
        if any(arm.method == "shuffled" for arm in arms):
            return arms
        model = next((arm for arm in arms if arm.method == "sft"), arms[0])
        name = "shuffled"
        while name in self.file.training.training_methods and any(a.name == name for a in arms):
            name += "_control"
        self._note(
            ("training", "training_methods"), f"the control {name} was added, trained as {model.name} is"
        )
        return [
            *arms,
            model.model_copy(update={"name": name, "method": "shuffled", "classifier_targets": {}}),
        ]

    def _usable(self, name: str, written: layout.Arm) -> bool:
        path = ("training", "training_methods", name)
        if name == "base":
            self._say(path, "base means the model before training; choose another name")
        if written.method == "grpo":
            self._say((*path, "method"), "grpo is not supported; set enabled: false or use sft or classified")
        if written.use_lora is not None and written.fine_tune_type is not None:
            if written.use_lora == (written.fine_tune_type == "full"):
                said = f"use_lora: {str(written.use_lora).lower()} contradicts fine_tune_type: {written.fine_tune_type}"
                self._say(path, f"{said}; drop one")
        return written.method != "grpo"

    def _arm(
        self,
        name: str,
        written: layout.Arm,
        operations: tuple[str, ...],
        vocabulary: dict[str, tuple[str, ...]],
    ) -> Arm:
        training = self.file.training
        method: Any = "classified" if written.method == "dual_reward" else written.method
        max_steps = written.max_steps or training.max_steps
        return Arm(
            name=name,
            method=method,
            fine_tune_type=written.fine_tune_type or ("full" if written.use_lora is False else "lora"),
            learning_rate=_first(written.learning_rate, training.learning_rate),
            batch_size=_first(written.batch_size, training.batch_size),
            max_steps=max_steps,
            checkpoint_steps=self._steps(name, written, max_steps),
            seeds=tuple(_first(written.seeds, training.seeds)),
            lora=self._lora(written.lora, training.lora, self.file.parameters.lora),
            classifier_weight=written.classifier_weight,
            classifier_layer_pct=written.classifier_layer_pct,
            classifier_targets=self._targets(name, written, operations, vocabulary)
            if method == "classified"
            else {},
        )

    def _steps(self, name: str, written: layout.Arm, max_steps: int) -> tuple[int, ...]:
        path = ("training", "training_methods", name, "checkpoint_steps")
        given = _first(written.checkpoint_steps, self.file.training.checkpoint_steps)
        late = [s for s in given if s > max_steps]
        if late and written.checkpoint_steps is not None:
            self._too_late(path, late, max_steps)
        elif late and late[0] <= self.file.training.max_steps:
            self._note(path, f"{', '.join(map(str, late))} beyond this arm's max_steps={max_steps} left out")
        steps = tuple(sorted({0, *given} - set(late)))
        if steps == (0,):
            if not late or written.checkpoint_steps is None:
                self._say(path, f"no checkpoint after step 0 within max_steps={max_steps}; add {max_steps}")
        elif steps[-1] < max_steps and not late:
            self._note(path, f"trained to {steps[-1]} of max_steps={max_steps}: nothing later is kept")
        return steps

    def _too_late(self, path: yaml_strict.Path, late: list[int], max_steps: int) -> None:
        many = ", ".join(map(str, late))
        self._say(path, f"{many} is beyond max_steps={max_steps}; raise max_steps or drop it")

    @staticmethod
    def _lora(*sections: layout.Lora) -> LoRA:
        given: dict[str, Any] = {}
        for section in reversed(sections):
            given |= {k: v for k, v in section.model_dump().items() if v is not None}
        if "targets" in given:
            given["targets"] = tuple(given["targets"])
        return LoRA(**given)

    def _targets(
        self,
        name: str,
        written: layout.Arm,
        operations: tuple[str, ...],
        vocabulary: dict[str, tuple[str, ...]],
    ) -> dict[str, str]:
        given = written.classifier_targets or {}
        targets = {op: given.get(op, op) for op in operations}
        for op, word in targets.items():
            if op in vocabulary and word not in vocabulary[op]:
                path = ("training", "training_methods", name, "classifier_targets", op)
                self._say(
                    path,
                    f"{_show(word)} is not in task_vocabulary.{op}, so it would not be seen; add it there",
                )
        return targets


def _first(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _show(text: str) -> str:
    return f"'{printable(text)}'"


def _unprintable(text: str) -> str | None:
    return next((f"U+{ord(c):04X}" for c in text if not c.isprintable()), None)
