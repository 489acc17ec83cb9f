"""plan.py: a page for one configuration, a table for several, in lines that fit a terminal."""

from pathlib import Path

import pytest

import plan
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT

PARENT = "extends: {parent}\nname: {name}\nmodel:\n  encoder: tu-test_resnet\n"
TINY = ["--set", "data.size=[64,96]", "--set", "model.encoder_weights=null"]


@pytest.fixture
def configs(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{name}.yaml" for name in ("first", "second_and_longer_one")]
    for path in paths:
        text = PARENT.format(parent=PROJECT / "configs/exp060.yaml", name=path.stem)
        path.write_text(text)
    return list(map(str, paths))


def test_one_configuration_has_a_page(configs: list[str], capsys) -> None:
    plan.main(["--config", configs[0], *TINY, "--set", "train.batch_size=6"])
    text = capsys.readouterr().out
    assert "first on NYUv2, estimated for t4" in text
    assert "at batch 6: fits" in text
    assert "nothing was run" in text
    assert max(map(len, text.splitlines())) <= 100


def test_several_have_a_table_a_device(configs: list[str], capsys) -> None:
    plan.main(["--config", *configs, "--device", "t4,h100", *TINY])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    for part in text.split("estimated for ")[1:]:
        rows = {line.split()[0]: line.split() for line in part.splitlines() if "yes" in line}
        assert set(rows) == {"first", "second_and_longer_one"}


def test_a_network_that_cannot_be_is_refused(configs: list[str]) -> None:
    with pytest.raises(UserError, match=r"model\.encoder: nonsense is unknown"):
        plan.main(["--config", *configs, *TINY, "--set", "model.encoder=nonsense"])
