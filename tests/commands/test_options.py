"""The options of the commands do not grow by accident."""

import re
from importlib import import_module

import pytest

from nyuseg.utils.files import PROJECT

# A new option is one more thing to choose, to explain and to test: whoever adds one adds it here.
USAGE = """
blend.py [--name NAME] [--input DIR] [--oof DIR] experiment [experiment ...]
check_kernel.py --submission SUBMISSION [--input INPUT] [--layout LAYOUT] [--kernel DIR]
compare.py [--output DIR] [--input DIR] [--oof DIR] experiment [experiment ...]
infer.py [--experiment EXPERIMENT] [--fold FOLD] [--tta] [--ray ADDRESS] [--format FORMAT]
  [--input DIR] [--submissions DIR] [--oof DIR] [--set KEY=VALUE]
leakage.py [--config CONFIG] [--input DIR] [--set KEY=VALUE]
package_kernel.py --owner OWNER [--experiment EXPERIMENT] [--fold FOLD] [--no-tta]
  [--format FORMAT] [--precision {half,fp32}] [--competition SLUG] [--type {notebook,script}]
  [--budget-hours BUDGET_HOURS] [--title TITLE] [--licence FILE] [--push]
  [--submit VERSION] [--output DIR] [--set KEY=VALUE] [--oof DIR]
plan.py [--config CONFIG [CONFIG ...]] [--device DEVICE] [--set KEY=VALUE]
prepare_data.py demo [--output DIR] [--seed SEED]
prepare_data.py nyuv2 --mat MAT [--output DIR] [--raw-depth]
prepare_data.py check [--input DIR] [--config CONFIG] [--set KEY=VALUE]
report.py [--submission NAME] [--output DIR] [--input DIR] [--submissions DIR] [--oof DIR]
  [--set KEY=VALUE] [experiment ...]
score.py submission [submission ...] labels
train_folds.py --fold FOLD [--config CONFIG [CONFIG ...]] [--input DIR] [--set KEY=VALUE] [--fresh]
  [--parallel N] [--ray ADDRESS] [--seeds SEEDS] [--oof DIR]
tta_search.py [--scales SCALES] [--input DIR] [--oof DIR] experiment
"""


def usage_of(script: str, monkeypatch: pytest.MonkeyPatch, capsys) -> list[str]:
    """What the --help of a script, and of each of its commands, says can be typed."""
    monkeypatch.setattr("sys.argv", [script])
    monkeypatch.setenv("COLUMNS", "1000")  # Of a terminal: one line.

    def ask(*words: str) -> str:
        with pytest.raises(SystemExit):
            import_module(script.removesuffix(".py")).main([*words, "--help"])
        return re.search(r"^usage: (.*)$", capsys.readouterr().out, re.MULTILINE)[1]

    line = ask()
    commands = re.search(r" \{([\w,]+)\} \.\.\.$", line)
    lines = [ask(command) for command in commands[1].split(",")] if commands else [line]
    return [line.replace(" [-h]", "") for line in lines]


def test_the_options_are_those_that_were_decided_on(monkeypatch, capsys) -> None:
    scripts = sorted(path.name for path in (PROJECT / "src").glob("*.py"))
    found = [line for script in scripts for line in usage_of(script, monkeypatch, capsys)]
    # A line that begins with spaces goes on with the one before it.
    assert found == re.sub(r"\n +", " ", USAGE.strip()).splitlines()
