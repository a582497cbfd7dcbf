"""A model folder may lie below one's home; what only the whole config shows to be wrong is told."""

import pytest
from configs import BASE, field, parameters, refused

from emergence.config import loading as config


@pytest.mark.parametrize("sign", ["~", "$HOME", "${HOME}"])
@pytest.mark.parametrize("rest", ["", "/models/mine"])
def test_the_home_folder_may_be_written_short(sign, rest, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for settled in (
        config.parse(field("model", sign + rest)),
        config.parse(BASE, {"model": sign + rest}),
    ):
        assert settled.model == f"{tmp_path}{rest}"
        (notice,) = settled.notices
        assert notice.endswith(f"model: {sign} is read as the home folder")
        assert str(tmp_path) not in notice
    assert config.parse(BASE, {"model": sign + rest}).notices[0].startswith("-p model: ")


@pytest.mark.parametrize("model", ["~alice/m", "a/~", "$HOMEWARD/m", "a$HOME/m", "hub/name", "./~/m", "m~"])
def test_any_other_name_is_taken_as_it_is(model):
    settled = config.parse(BASE, {"model": model})
    assert (settled.model, settled.notices) == (model, ())


def test_a_home_that_cannot_be_found_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert config.parse(BASE, {"model": "~/m"}).model == "~/m"


def test_every_stage_is_asked_before_a_config_is_refused():
    text = parameters("read_styles: [worded]").replace("minus,", "plus,").replace("[0, 50, 100]", "[0, 600]")
    lines = refused(text.replace("num_samples: 90", "num_samples: 30000").replace("sft: {", "base: {"))
    fields = {line.split(": ")[1] for line in lines}
    assert fields >= {
        "parameters.read_styles",
        "parameters.task_vocabulary.subtract",
        "training.checkpoint_steps",
        "training.training_methods.base",
        "parameters.operands.add",
    }
