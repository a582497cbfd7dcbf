"""Configs that cannot be meant, each with what it is answered: file, line, field, value, remedy."""

from configs import BASE, classified, edited, field, parameters, sft, training

BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(9)
)

UNREADABLE = {
    "empty": ("", "config.yaml: the config is empty"),
    "only a comment": ("# nothing\n", "the config is empty"),
    "a list": ("- a\n- b\n", "config.yaml:1: the config is not a mapping"),
    "a word": ("name\n", "config.yaml:1: the config is not a mapping"),
    "no YAML": ("name: [a, b\nmodel: x\n", "config.yaml:2: no valid YAML"),
    "a tab": ("name:\n\tx: 1\n", "config.yaml:2: no valid YAML"),
    "a bare *": (
        edited('"*"', "*"),
        'config.yaml:16: no valid YAML: .*; a glyph such as \\* needs quotes: "\\*"',
    ),
    "a colon in a text": (
        "name: a: b\n",
        "config.yaml:1: no valid YAML: .*; a text with a colon needs quotes",
    ),
    "an alias bomb": (BOMB, r"config.yaml:2: alias \*a; write the value out"),
    "deep nesting": ("name: " + "[" * 5000 + "]" * 5000, "config.yaml:1: nested more than 20 deep"),
    "deep indentation": ("".join(" " * i + "a:\n" for i in range(60)), "nested more than 20 deep"),
    "code": (
        "name: !!python/object/apply:os.system ['true']\n",
        "config.yaml:1: the tag 'tag:yaml.org,2002:python/",
    ),
    "a tag": ("name: !!int '3'\n", "config.yaml:1: the tag"),
    "two documents": (BASE + "---\n" + BASE, "config.yaml:17: a second document"),
    "a list as key": ("[a, b]: c\n", "config.yaml:1: a key must be a word"),
    "a NUL": ("name: a\x00b\n", r"config.yaml:1: the character U\+0000 is not allowed"),
    "an escape": ("name: a\n\x1b[31m: b\n", r"config.yaml:2: the character U\+001B is not allowed"),
    "huge": ("# " + "x" * 300_000, r"config.yaml: 300002 bytes; a config has at most 262144"),
}

NO_ARM = BASE.replace("method: ", "enabled: false, method: ").replace(
    "false, method: c", "false\n      method: c"
)

WRONG = {
    "unknown key": (
        training("max_step: 3"),
        r":4: training.max_step: unknown key; did you mean max_steps\?; known: max_steps, ",
    ),
    "unknown key of an arm": (
        sft("metod: sft"),
        r":7: training.training_methods.sft.metod: unknown key; did you mean method\?",
    ),
    "unknown parameter": (parameters("zzz: 3"), r":12: parameters.zzz: unknown key; known: seed, "),
    "mistyped section": (
        BASE.replace("training:", "trainning:", 1),
        r":3: trainning: unknown key; did you mean training\?",
    ),
    "no name": (edited("name: small\n", ""), "config.yaml:1: name: missing"),
    "no model": (edited("model: somewhere/model\n", ""), "model: missing"),
    "no parameters": (BASE[: BASE.index("parameters:")], "parameters: missing"),
    "name leaves the folder": (field("name", "../../etc"), r":1: name: '../../etc' may hold letters"),
    "name with a slash": (field("name", "a/b"), ":1: name: 'a/b' may hold"),
    "name too long": (field("name", "a" * 100), ":1: name: "),
    "model empty": (field("model", '""'), ":2: model: "),
    "model with control characters": (
        field("model", r'"a\x1b[31mb"'),
        r":2: model: holds the character U\+001B",
    ),
    "description turns the text around": (
        edited("name: small\n", 'name: small\ndescription: "a \\u202e b"\n'),
        r":2: description: holds the character U\+202E",
    ),
    "a word for a number": (
        field("max_steps", "many"),
        ":4: training.max_steps: 'many' is not a whole number; write it in digits",
    ),
    "a quoted number": (
        field("max_steps", "'100'"),
        ":4: training.max_steps: '100' is not a whole number; .* without quotes",
    ),
    "half a step": (field("max_steps", "99.5"), ":4: training.max_steps: 99.5 is not a whole number"),
    "true for a number": (field("max_steps", "true"), ":4: training.max_steps: True is not a whole number"),
    "no steps": (field("max_steps", "0"), ":4: training.max_steps: 0 should be greater than or equal to 1"),
    "negative steps": (field("max_steps", "-5"), ":4: training.max_steps: -5 should be"),
    "huge steps": (field("max_steps", "99999999999"), ":4: training.max_steps: 99999999999 should be less"),
    "steps with a leading zero": (
        field("max_steps", "0100"),
        r":4: training.max_steps: 0100 has a leading zero; write 100",
    ),
    "rate zero": (training("learning_rate: 0"), ":4: training.learning_rate: 0 should be greater than 0"),
    "rate NaN": (training("learning_rate: .nan"), ":4: training.learning_rate: .nan is not a finite number"),
    "rate infinite": (
        training("learning_rate: 1e400"),
        ":4: training.learning_rate: 1e400 is not a finite number",
    ),
    "rate with two points": (training("learning_rate: 1.e-4.5"), "learning_rate: '1.e-4.5' is not a number"),
    "batch zero": (training("batch_size: 0"), ":4: training.batch_size: 0 should be"),
    "unsorted checkpoints": (
        field("checkpoint_steps", "[0, 100, 50]"),
        r":5: training.checkpoint_steps: the steps must ascend; write \[0, 50, 100\]",
    ),
    "checkpoint twice": (
        field("checkpoint_steps", "[0, 50, 50]"),
        ":5: training.checkpoint_steps: 50 is given twice; drop one",
    ),
    "negative checkpoint": (
        field("checkpoint_steps", "[-1, 50]"),
        r":5: training.checkpoint_steps\[0\]: -1 should be greater",
    ),
    "late checkpoint": (
        field("checkpoint_steps", "[0, 600]"),
        ":5: training.checkpoint_steps: 600 is beyond max_steps=100; raise max_steps or drop it",
    ),
    "late checkpoint of an arm": (
        sft("max_steps: 60, checkpoint_steps: [50, 70, 80]"),
        ":7: training.training_methods.sft.checkpoint_steps: 70, 80 are beyond max_steps=60",
    ),
    "no checkpoint": (
        field("checkpoint_steps", "[]"),
        ":5: training.checkpoint_steps: 0 given; at least 1 needed",
    ),
    "only step zero": (
        field("checkpoint_steps", "[0]"),
        "no checkpoint after step 0 within max_steps=100; add 100",
    ),
    "no checkpoint within an arm": (
        sft("max_steps: 40"),
        "sft.checkpoint_steps: no checkpoint after step 0 within max_steps=40",
    ),
    "a group of one": (
        sft("method: grpo, group_size: 1"),
        "sft.group_size: a group of 1 has nothing to compare a reward with; 8 is usual, 2 the least",
    ),
    "no updates by reward": (
        sft("method: grpo, sft_steps: 100"),
        "sft.sft_steps: 100 leaves no update of max_steps=100 to learn by reward; lower it",
    ),
    "no checkpoint after the first update by reward": (
        sft("method: grpo, sft_steps: 60, checkpoint_steps: [0, 50]"),
        "sft.sft_steps: no checkpoint after sft_steps=60; add 100 to checkpoint_steps",
    ),
    "an unknown reward": (
        sft("method: grpo, reward: verfied"),
        "sft.reward: unknown value 'verfied'; did you mean verified.*known: verified, random",
    ),
    "an unknown advantage": (
        sft("method: grpo, advantage: std"),
        "sft.advantage: unknown value 'std'.*known: centred, positive",
    ),
    "rewards that stop early": (
        sft("method: grpo, sft_steps: 50, until: {accuracy: 0.9}"),
        "sft.until: a grpo arm goes on to its last checkpoint",
    ),
    "a word among checkpoints": (
        field("checkpoint_steps", "[0, last]"),
        r":5: training.checkpoint_steps\[1\]: 'last' is not a whole number",
    ),
    "checkpoints no list": (
        field("checkpoint_steps", "100"),
        r":5: training.checkpoint_steps: 100 is not a list; write \[one, two\]",
    ),
    "seed twice": (training("seeds: [1, 1]"), ":4: training.seeds: 1 is given twice"),
    "seed negative": (training("seeds: [-1]"), r":4: training.seeds\[0\]: -1"),
    "no seed": (training("seeds: []"), ":4: training.seeds: 0 given; at least 1"),
    "rank zero": (
        training("lora: {rank: 0}"),
        ":4: training.lora.rank: 0 should be greater than or equal to 1",
    ),
    "alpha zero": (training("lora: {alpha: 0}"), ":4: training.lora.alpha: 0 should be greater than 0"),
    "all is dropped": (training("lora: {dropout: 1}"), ":4: training.lora.dropout: 1 should be less than 1"),
    "no block": (
        training("lora: {num_layers: 0}"),
        ":4: training.lora.num_layers: 0 blocks would train nothing",
    ),
    "no target": (training("lora: {targets: []}"), ":4: training.lora.targets: 0 given"),
    "target on the head": (
        training("lora: {targets: [lm_head]}"),
        r":4: training.lora.targets\[0\]: an adapter on .* would move the lens",
    ),
    "target on the embedding": (training("lora: {targets: [embed_tokens]}"), "would move the lens"),
    "target no name": (training("lora: {targets: ['../x']}"), r"targets\[0\]: '../x' may hold"),
    "no arm enabled": (NO_ARM, "training_methods: no arm is enabled; enable one"),
    "arm without settings": (
        edited("sft: {method: sft}", "sft:"),
        "training_methods.sft: None is not a section; write indented",
    ),
    "unknown method": (
        edited("method: shuffled", "method: shufled"),
        r"shuffled.method: unknown value 'shufled'; did you mean shuffled\?; known: sft, shuffled, ",
    ),
    "unknown fine-tuning": (sft("fine_tune_type: lara"), r"unknown value 'lara'; did you mean lora\?"),
    "contradiction": (
        sft("use_lora: true, fine_tune_type: full"),
        ":7: .*sft: use_lora: true contradicts fine_tune_type: full; drop one",
    ),
    "neither true nor false": (sft("enabled: maybe"), ":7: .*sft.enabled: 'maybe' is neither true nor false"),
    "arm called base": (edited("sft: {", "base: {"), ":7: .*base: base means the model before training"),
    "arm with a path for a name": (edited("sft: {", "../x: {"), "'../x' may hold letters"),
    "depth one": (
        classified("classifier_layer_pct: 1.0"),
        ":11: .*classifier_layer_pct: 1.0 should be less than 1",
    ),
    "weight zero": (
        classified("classifier_weight: 0"),
        ":11: .*classifier_weight: 0 should be greater than 0",
    ),
    "target word that is not looked for": (
        classified("classifier_targets: {add: joined}"),
        ":11: .*classifier_targets.add: 'joined' is not in task_vocabulary.add",
    ),
    "target of an unknown class": (
        classified("classifier_targets: {addd: add}"),
        r":11: .*classifier_targets.addd: unknown operation 'addd'; did you mean add\?",
    ),
    "one class": (
        BASE[: BASE.index("    subtract: [")],
        r":13: parameters.task_vocabulary: 1 class; a classifier tells classes apart: write at least 2",
    ),
    "unknown operation": (
        parameters("operations: [add, power]"),
        r":12: parameters.operations\[1\]: unknown operation 'power'; known: add, subtract, multiply, divide",
    ),
    "one operation": (parameters("operations: [add]"), ":12: parameters.operations: 1 given; at least 2"),
    "operation without words": (parameters("operations: [add, divide]"), "no words for the class divide"),
    "operation twice": (
        parameters("operations: [add, addition]"),
        ":12: parameters.operations: 'add' is given twice",
    ),
    "few prompts": (
        parameters("num_test: 9"),
        ":12: parameters.num_test: 9 should be greater than or equal to 10",
    ),
    "no training problems": (
        edited("num_samples: 90", "num_samples: 2"),
        ":12: parameters.num_samples: 2 is less than one a class",
    ),
    "too many for the range": (
        edited("num_samples: 90", "num_samples: 30000"),
        r":11: parameters.operands.add: \[2, 99\] holds 4851 distinct problems, but 10090 a class",
    ),
    "range upside down": (
        parameters("operands: {add: [9, 2]}"),
        r":12: parameters.operands.add: the lower end is above the upper one; write \[2, 9\]",
    ),
    "negative operands": (
        parameters("operands: {add: [-9, 9]}"),
        r":12: parameters.operands.add\[0\]: -9 should be greater than or equal to 0",
    ),
    "huge operands": (
        parameters("operands: {add: [2, 10000000]}"),
        r":12: parameters.operands.add\[1\]: 10000000 should be less than or equal to 999999",
    ),
    "three ends": (
        parameters("operands: {add: [2, 3, 4]}"),
        ":12: parameters.operands.add: 3 given; at most 2",
    ),
    "operands of an unknown class": (
        parameters("operands: {ad: [2, 3]}"),
        r"unknown operation 'ad'; did you mean add\?",
    ),
    "division by zero": (
        parameters("operands: {divide: [0, 99]}") + "    divide: [divide]\n",
        r":12: parameters.operands.divide: \[0, 99\] holds the divisor 0; begin at 1",
    ),
    "matched operands beside those of a class": (
        parameters("operands: {a: [10, 99], b: [2, 9], multiply: [2, 20]}"),
        ":12: parameters.operands.multiply: is for operands by class, and a for pairs under every class; "
        "drop one of them$",
    ),
    "one matched operand beside those of a class": (
        parameters("operands: {add: [2, 20], b: [2, 9]}"),
        ":12: parameters.operands.add: is for operands by class, and b for pairs under every class",
    ),
    "too few matched pairs": (
        parameters("operands: {a: [10, 19], b: [2, 9]}"),
        r":12: parameters.operands: a in \[10, 19\] with b in \[2, 9\] are 80 pairs with a whole answer "
        "under every class, but 120 are needed",
    ),
    "too many matched pairs": (
        parameters("operands: {a: [0, 99999], b: [2, 20]}"),
        ":12: parameters.operands: a and b hold 1900000 pairs, more than 1000000; narrow their ranges$",
    ),
    "matched range upside down": (
        parameters("operands: {a: [99, 10], b: [2, 9]}"),
        r":12: parameters.operands.a: the lower end is above the upper one; write \[10, 99\]",
    ),
    "a third matched operand": (
        parameters("operands: {a: [10, 99], b: [2, 9], c: [2, 9]}"),
        "unknown operation 'c'",
    ),
    "a warm-up as long as the training": (
        training("warmup: 100"),
        ":4: training.warmup: 100 updates of max_steps=100; the rate never arrives: lower it$",
    ),
    "a warm-up of an arm as long as its training": (
        sft("method: sft, warmup: 60, max_steps: 60"),
        ":7: training.training_methods.sft.warmup: 60 updates of max_steps=60; the rate never arrives",
    ),
    "a warm-up that an arm ends before": (
        training("warmup: 60").replace("{method: sft}", "{method: sft, max_steps: 50}"),
        ":4: training.warmup: 60 updates of max_steps=50; the rate never arrives",
    ),
    "a negative warm-up": (training("warmup: -1"), ":4: training.warmup: -1 should be greater than or equal"),
    "an unknown schedule": (training("lr_schedule: linear"), ":4: training.lr_schedule: .*cosine"),
    "an unknown Adam": (training("adam: amsgrad"), ":4: training.adam: .*corrected"),
    "unknown style": (
        parameters("styles: [symbolik]"),
        r":12: parameters.styles\[0\]: unknown value 'symbolik'; did you mean symbolic\?",
    ),
    "style not read": (
        parameters("read_styles: [worded]"),
        ":12: parameters.read_styles: symbolic is trained on but not read; add it",
    ),
    "empty vocabulary": (BASE[: BASE.index("    add:")] + "    {}\n", "parameters.task_vocabulary: 0 class"),
    "class without words": (
        edited('[add, plus, "+"]', "[]"),
        r"parameters.task_vocabulary.add: no word for the class add; add one",
    ),
    "only glyphs": (
        edited('[add, plus, "+"]', '["+"]'),
        ":14: parameters.task_vocabulary.add: no word for the class add",
    ),
    "only answers": (
        edited('[add, plus, "+"]', '["68", 82]'),
        ":14: parameters.task_vocabulary.add: no word for the class add",
    ),
    "empty word": (edited("[add, plus,", '[add, "", plus,'), r":14: parameters.task_vocabulary.add\[1\]: "),
    "spaced word": (
        edited("[add, plus,", '[add, " plus",'),
        r":14: parameters.task_vocabulary.add\[1\]: ' plus' has a space around it",
    ),
    "word twice": (
        edited("[add, plus,", "[add, plus, plus,"),
        r":14: parameters.task_vocabulary.add\[2\]: 'plus' is given twice",
    ),
    "word too long": (
        edited("[add, plus,", f"[add, plus, {'a' * 50},"),
        r":14: parameters.task_vocabulary.add\[2\]: ",
    ),
    "word with a control character": (
        edited("[add, plus,", r'[add, "pl\x07us",'),
        r":14: parameters.task_vocabulary.add\[1\]: 'pl\\x07us' holds the character U\+0007",
    ),
    "word with a lone surrogate": (
        edited("[add, plus,", r'[add, "pl\ud800",'),
        "'pl.*ud800' holds half of a surrogate pair",
    ),
    "word turned around": (edited("[add, plus,", r'[add, "\u202esulp",'), r"holds the character U\+202E"),
    "shared word": (
        edited("[subtract, minus,", "[subtract, minus, Plus,"),
        ":15: parameters.task_vocabulary.subtract: 'Plus' belongs to add, too",
    ),
    "shared glyph": (
        edited('[subtract, minus, "-"', '[subtract, minus, "+"'),
        r":15: parameters.task_vocabulary.subtract: '\+' belongs to add, too",
    ),
    "nested word": (
        edited('"-"]', "[minus]]"),
        r":15: parameters.task_vocabulary.subtract\[2\]: \['minus'\] is not a text",
    ),
    "class under two names": (
        BASE + "    addition: [sum]\n",
        ":13: parameters.task_vocabulary: the class add is given twice under two names",
    ),
    "unknown class": (
        BASE + "    exponentiation: [power]\n",
        ":17: parameters.task_vocabulary.exponentiation: unknown operation 'exponentiation'",
    ),
    "key twice": (
        BASE + "    add: [sum]\n",
        ":17: parameters.task_vocabulary.add: given twice, first in line 14; drop one",
    ),
    "section twice": (BASE + "training: {}\n", ":17: training: given twice, first in line 3"),
}

PROMPTS = {
    "empty": ('""', "'' is no arithmetic prompt; write it like '7 \\* 8 = '"),
    "blank": ('"   "', "is no arithmetic prompt"),
    "no problem": ("The capital of France is", "'The capital of France is' is no arithmetic prompt"),
    "twice": ('"7 + 8 = ", "7 + 8 = "', r"add\[1\]: '7 \+ 8 = ' is given twice"),
    "too long": (f'"{"9" * 300} + 1 = "', "is no arithmetic prompt"),
    "other class": ('"7 * 8 = "', "is a problem to multiply, not to add; move it there"),
    "wrong answer": ('{prompt: "7 + 8 = ", expected: "16"}', r"the answer of '7 \+ 8 = ' is 15, not '16'"),
    "control character": (r'"7 + 8\x07 = "', "is no arithmetic prompt"),
    "escape sequence": (r'"\x1b[31m7 + 8 = "', r"is no arithmetic prompt"),
    "emoji": ('"7 + 😀 = "', "is no arithmetic prompt"),
    "right to left": ('"٧ + ٨ = "', "is no arithmetic prompt"),
    "direction mark": (r'"7 + 8 = \u202e"', "is no arithmetic prompt"),
    "markup": ('"</script> = "', "'</script> = ' is no arithmetic prompt"),
    "negative answer": ('"3 - 5 = "', "the difference is negative"),
    "huge operand": ('"12345678 + 1 = "', "operands lie between 0 and 999999"),
    "no text": ("{expected: '15'}", r"add\[0\].prompt: missing"),
    "unknown key": (
        "{prompt: '7 + 8 = ', answer: '15'}",
        r"add\[0\].answer: unknown key; known: prompt, expected",
    ),
    "a list": ("[1, 2]", r"add\[0\]: \['1', '2'\] is not a section"),
}
