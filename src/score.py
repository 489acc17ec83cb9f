"""Score submissions on labels: the final score line, never for a choice.

examples:
  python src/score.py submissions/demo_tta input/demo/test_label
  python src/score.py submissions/demo_fold0 submissions/demo input/demo/test_label
"""

from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, run
from nyuseg.utils.files import find


def main(argv: Sequence[str] | None = None) -> None:
    from nyuseg.evaluation.leaderboard import score_submission, score_table

    parser = Parser(__doc__)
    parser.add_argument("submission", nargs="+", help="submission folder, or a file of one")
    parser.add_argument("labels", help="folder of NNNNNN.png labels")
    options = parser.parse_args(argv)
    labels = find(options.labels)
    scores = [score_submission(Path(find(path)), labels) for path in options.submission]
    print(score_table(scores))


if __name__ == "__main__":
    run(main)
