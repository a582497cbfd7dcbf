"""The page about the config says what the schema says."""

from configs import refused
from places import ROOT

from emergence.config import reference


def test_the_configuration_page_is_what_the_schema_says():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference.configuration(), "python -m emergence.config.reference > docs/configuration.md"


def test_the_errors_on_the_configuration_page_are_those_one_gets():
    text = (
        "name: a\nmodel: b\n\n\n\ntraining:\n  max_steps: 500\n  checkpoint_steps: [0, 600]\n"
        "  training_methods:\n    sft: {method: sft}\nparameters:\n  num_samples: 90\n"
        "  task_vocabulary:\n    add: [add, sum]\n    subtract: [minus, sum]\n"
    )
    assert sorted(refused(text)) == sorted(reference.EXAMPLE.split("\n"))
