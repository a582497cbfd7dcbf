"""What a `config.yaml` may say: every field with its type, range, default and meaning.

In: plain data of a YAML file. Out: a `Layout`: valid field by field, but not yet resolved; `resolve` fills in
what is unset. `docs/configuration.md` is made from here. The layout is that of `lazarus experiment`
(chrishayuk/chuk-mlx).
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ..tasks.task import Task
from . import settings
from .problems import Path
from .values import (
    MATCHED,
    Adam,
    Batch,
    ByClass,
    Class,
    Flag,
    Folder,
    Group,
    Name,
    OperandName,
    OperandRange,
    Rate,
    Schedule,
    Seed,
    SeedList,
    Step,
    StepList,
    Steps,
    Style,
    Target,
    Warmup,
    Word,
    classes,
    distinct,
    one_or_more,
    some,
)

Method = Literal["sft", "shuffled", "classified", "dual_reward", "given", "grpo"]
_ARM = settings.Arm(name="")
"""Its fields are the defaults of a config."""
_TEXTS = ("name", "model", "description", "examples", "task_vocabulary", "test_prompts")


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


class Lora(_Section):
    """Low-rank adapters (arXiv:2106.09685). Unset fields are taken from the section further out."""

    rank: Annotated[int | None, Field(ge=1, le=4096)] = Field(
        default=None, description="rank of each adapter; 16 if unset"
    )
    alpha: Annotated[float | None, Field(gt=0, le=1e6)] = Field(
        default=None, description="the update is multiplied by alpha / rank (mlx-lm's `scale`); 32 if unset"
    )
    dropout: Annotated[float | None, Field(ge=0, lt=1)] = Field(
        default=None, description="share of the adapters' inputs dropped while training; 0 if unset"
    )
    targets: Annotated[
        list[Target] | None, Field(min_length=1, max_length=50), AfterValidator(lambda v: v and distinct(v))
    ] = Field(
        default=None, description="layers of each block that get one; q_proj, k_proj, v_proj, o_proj if unset"
    )
    num_layers: Annotated[int | None, Field(ge=-1, le=10_000), AfterValidator(some)] = Field(
        default=None, description="how many of the last blocks get them; -1, all of them, if unset"
    )


class Until(_Section):
    """When a run may stop before its last checkpoint."""

    accuracy: Annotated[float, Field(gt=0, le=1)] = Field(
        description="stop at the first checkpoint where this share of whole validation answers is right in "
        "every class; later checkpoints are then the same as this one"
    )
    max_steps: Steps | None = Field(default=None, description="the same as `max_steps` beside it")


class Arm(_Section):
    """One way to train. Unset fields are taken from `training`."""

    enabled: Flag = Field(default=True, description="whether the arm runs")
    method: Method = Field(
        default="sft",
        description="`sft`; `shuffled`: answers permuted within the class, a control; `classified` or "
        "`dual_reward`: the class word at an intermediate layer is taught, too; `given`: checkpoints that "
        "others trained are taken as they are; `grpo`: by reward, after `sft_steps` of sft",
    )
    checkpoints: Annotated[
        list[Folder] | None, Field(min_length=1, max_length=100), BeforeValidator(one_or_more)
    ] = Field(
        default=None,
        description="given: the folder of the series, or one for each seed; adapters of mlx-lm "
        "(`0000100_adapters.safetensors`) or of peft (`checkpoint-100/`), beside the config, or below `~`",
    )
    use_lora: Flag | None = Field(default=None, description="false is `fine_tune_type: full`")
    fine_tune_type: Literal["lora", "dora", "full"] | None = Field(
        default=None, description="as in mlx-lm; lora if unset"
    )
    learning_rate: Rate | None = Field(default=None, description="of Adam, the largest of a schedule")
    lr_schedule: Schedule | None = Field(default=None, description="after the warm-up; see `training`")
    warmup: Warmup | None = Field(default=None, description="updates of a rising rate")
    adam: Adam | None = Field(default=None, description="see `training`")
    batch_size: Batch | None = Field(default=None, description="rows a step")
    max_steps: Steps | None = Field(default=None, description="optimizer updates")
    until: Until | None = Field(default=None, description="stop when it is learned; see below")
    checkpoint_steps: StepList | None = Field(
        default=None,
        description="updates after which a checkpoint is kept; those inherited beyond max_steps are left out",
    )
    seeds: SeedList | None = Field(default=None, description="one run each")
    classifier_weight: Annotated[float, Field(gt=0, le=100)] = Field(
        default=_ARM.classifier_weight,
        description="classified: weight of the class word's loss beside the answer's, which weighs 1",
    )
    classifier_layer_pct: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=_ARM.classifier_layer_pct,
        description="classified: depth at which the class word is read, as a share of the layers",
    )
    classifier_targets: Annotated[dict[Class, Word] | None, ByClass] = Field(
        default=None, description="classified: the word of each class; the operation's own name if unset"
    )
    sft_steps: Step = Field(
        default=_ARM.sft_steps,
        description="grpo: updates of sft before the first one by reward, the same as an sft arm makes; a "
        "checkpoint is kept there",
    )
    group_size: Group = Field(default=_ARM.group_size, description="grpo: answers sampled for each prompt")
    reward: Literal["verified", "random"] = Field(
        default=_ARM.reward,
        description="grpo: `verified`: 1 for the checked answer and the end of text, else 0; `random`: the "
        "same rewards permuted within each group, a control",
    )
    advantage: Literal["centred", "positive"] = Field(
        default=_ARM.advantage,
        description="grpo: `centred`: reward minus the group's mean; `positive`: the reward itself, so that "
        "right answers alone teach",
    )
    policy_learning_rate: Rate = Field(
        default=_ARM.policy_learning_rate, description="grpo: of Adam in updates by reward, constant"
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=256)] = Field(
        default=_ARM.max_new_tokens, description="grpo: tokens of a sampled answer, its end among them"
    )
    lora: Lora = Field(default=Lora(), description="adapters of this arm")


class Training(_Section):
    """How the arms are trained; each may say otherwise for itself."""

    max_steps: Steps = Field(default=_ARM.max_steps, description="optimizer updates")
    until: Until | None = Field(default=None, description="stop when it is learned; see below")
    batch_size: Batch = Field(default=_ARM.batch_size, description="rows a step, classes mixed")
    learning_rate: Rate = Field(default=_ARM.learning_rate, description="of Adam, the largest of a schedule")
    lr_schedule: Schedule = Field(
        default=_ARM.lr_schedule,
        description="after the warm-up: `constant`, or `cosine` down to a hundredth at max_steps",
    )
    warmup: Warmup = Field(
        default=_ARM.warmup, description="updates in which the rate rises in a line to learning_rate"
    )
    adam: Adam = Field(
        default=_ARM.adam,
        description="`uncorrected` as in mlx-lm: betas 0.9 and 0.999 without bias correction, which makes "
        "early updates larger, threefold at the hundredth; `corrected`: betas 0.9 and 0.99 with it",
    )
    checkpoint_steps: StepList = Field(
        default=list(_ARM.checkpoint_steps),
        description="updates after which a checkpoint is kept; 0 always is",
    )
    seeds: SeedList = Field(default=list(_ARM.seeds), description="one run of each arm for each")
    lora: Lora = Field(default=Lora(), description="adapters of all arms; also written `parameters.lora`")
    training_methods: Annotated[dict[Name, Arm], Field(max_length=20)] = Field(
        default={"sft": Arm()},
        description="the arms by name; `{}` trains nothing: the base model alone is read",
    )


class Prompt(_Section):
    """A prompt to look at, with the answer that it should have."""

    prompt: str = Field(description="such as `7 * 8 = `")
    expected: str | None = Field(
        default=None, description="its answer, checked; computed if unset (needed with `examples`)"
    )


def _prompts(value: object) -> object:
    return {"prompt": value} if isinstance(value, str) else value


PromptList = Annotated[list[Annotated[Prompt, BeforeValidator(_prompts)]], Field(max_length=1000)]


class Parameters(_Section):
    """The task, what is looked for, and what is shown."""

    seed: Seed = Field(default=Task.seed, description="draws the problems, not the training")
    num_samples: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        default=1800, description="training problems, all classes together; each class gets the same number"
    )
    num_valid: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=Task.num_valid, description="validation problems a class"
    )
    num_test: Annotated[int, Field(ge=10, le=100_000)] = Field(
        default=Task.num_test, description="test problems a class, the ones judged"
    )
    examples: Annotated[str | None, Field(min_length=1, max_length=500)] = Field(
        default=None,
        description="a JSONL file of prompts of your own, in the config's folder, a line each: "
        '`{"class": "even", "prompt": "The number 48 is", "answer": " even"}`; its classes, any names, are '
        "those of `task_vocabulary`, its style is `own`; without `operations`, `operands`, `styles`, "
        "`read_styles`",
    )
    operations: Annotated[list[Class], Field(min_length=2), AfterValidator(distinct)] | None = Field(
        default=None, description="the classes; those of `task_vocabulary` if unset"
    )
    operands: Annotated[dict[OperandName, OperandRange], ByClass] = Field(
        default={},
        description="`a` and `b`: smallest and largest first and second operand of pairs that are asked "
        "under every class, so that operands say nothing about it; or by class, smallest and largest operand "
        "(divide: divisor and quotient), as in `add: [2, 60]`; [2, 99] if unset",
    )
    styles: Annotated[list[Style], Field(min_length=1), AfterValidator(distinct)] = Field(
        default=["symbolic"], description="prompt styles that are trained on"
    )
    read_styles: Annotated[list[Style], Field(min_length=1), AfterValidator(distinct)] = Field(
        default=["symbolic", "worded"], description="prompt styles that are read at every checkpoint"
    )
    lora: Lora = Field(
        default=Lora(), description="adapters of all arms, if neither `training.lora` nor the arm says"
    )
    task_vocabulary: Annotated[dict[Class, list[Word]], Field(max_length=20), ByClass] = Field(
        description="words and operator glyphs by class; numbers are left out, answers come from each problem"
    )
    test_prompts: Annotated[dict[Class, PromptList], ByClass] = Field(
        default={},
        description="prompts that are shown in the report; kept out of training, validation and test",
    )


class Layout(_Section):
    """The whole file."""

    name: Name = Field(description="of the experiment: letters, digits, `_`, `-`, `.`")
    description: Annotated[str, Field(max_length=2000)] = Field(
        default="", description="a sentence for people"
    )
    model: Annotated[str, Field(min_length=1, max_length=500)] = Field(
        description="`smollm2-135m-instruct` (embedded), a hub id or a folder, also below `~` or `$HOME`"
    )
    quick: dict[str, Any] = Field(
        default={}, description="what `--quick` changes, by dotted name: `{training.max_steps: 100}`"
    )
    training: Training = Field(default=Training(), description="see below")
    parameters: Parameters = Field(description="see below")


def as_text(path: Path) -> bool:
    """Fields whose value is the text that was written: the word `no`, the answer 56, the name 1e5."""
    if path[:1] == ("parameters",):
        path = path[1:]
    if path[:1] in {(name,) for name in _TEXTS}:
        return True
    return path[:2] == ("training", "training_methods") and path[3:4] == ("classifier_targets",)


def names(data: Any) -> list[Path]:
    """The path of every field that a config may have; arms are those in `data`, or `*` where it has none."""
    return list(_below(Layout, data, (), classes(data).known))


def _below(kind: Any, data: Any, path: Path, known: tuple[str, ...]) -> Iterator[Path]:
    """The fields inside one of type `kind`, whose value is `data`; `known` are the classes."""
    origin, parts = get_origin(kind), get_args(kind)
    given = data if isinstance(data, dict) else {}
    inside: dict[str, Any] = {}
    if origin in (Annotated, list):
        yield from _below(parts[0], data, path, known)
    elif origin in (Union, types.UnionType):
        for part in parts:
            yield from _below(part, data, path, known)
    elif origin is dict:
        keys = (*MATCHED, *known) if parts[0] == OperandName else known
        inside = dict.fromkeys((given or "*") if Arm in parts else keys, parts[1])
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        inside = {name: info.annotation for name, info in kind.model_fields.items()}
    for name, inner in inside.items():
        yield (*path, name)
        yield from _below(inner, given.get(name), (*path, name), known)
