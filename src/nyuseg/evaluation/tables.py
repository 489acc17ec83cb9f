"""Tables for people."""

import math

from nyuseg.data.classes import CLASS_NAMES
from nyuseg.evaluation.history import number
from nyuseg.experiment.records import BlendRecord, CrossValidation, Estimate

# Reported by the author of Exp060 (validation of one random split, NYUv2, epoch 22).
EXP060_MIOU = 0.6228
EXP060_PIXEL_ACCURACY = 0.8215
EXP060_IOU = (
    *(0.707, 0.351, 0.663, 0.620, 0.908, 0.635, 0.549),
    *(0.620, 0.552, 0.476, 0.520, 0.821, 0.677),
)
UNKNOWN = Estimate(value=None, low=None, high=None, p_above=None)


def cv_table(result: CrossValidation) -> str:
    """The pooled scores of cv.json as text, beside the numbers of the Exp060 report."""
    lines = [
        f"Out-of-fold scores of {result.experiment}: {result.images} images, "
        f"{len(result.folds)} folds, checkpoint '{result.predicts}'"
    ]
    if result.notice:
        lines.append(f"!! {result.notice} !!")
    lines += ["", f"{'':16}{'this run':>10}  {'Exp060 as reported (NYUv2, random split)':>42}"]
    reported = dict(zip(CLASS_NAMES, EXP060_IOU, strict=True))
    for name, iou in result.class_iou.items():
        lines.append(f"{name:16}{number(iou, 3):>10}  {reported[name]:>42.3f}")
    lines += [
        f"{'mIoU':16}{number(result.miou):>10}  {EXP060_MIOU:>42.4f}",
        f"{'pixel accuracy':16}{number(result.pixel_accuracy):>10}  {EXP060_PIXEL_ACCURACY:>42.4f}",
    ]
    lines.append(f"{'depth MAE (m)':16}{number(result.depth_mae_m, 3):>10}  {'not reported':>42}")
    lines += ["", "fold  images    mIoU  pixel acc  best epoch  best mIoU  last mIoU"]
    for row in result.folds:
        lines.append(
            f"{row.fold:>4}  {row.images:>6}  {number(row.miou):>6}"
            f"  {number(row.pixel_accuracy):>9}  {row.best_epoch:>10}"
            f"  {number(row.best_miou):>9}  {number(row.last_miou):>9}"
        )
    return "\n".join([*lines, "", *_checkpoint_lines(result)])


def _checkpoint_lines(result: CrossValidation) -> list[str]:
    """Which checkpoint of the folds would have predicted how well."""
    lines = ["checkpoint    mIoU  pixel acc  over last  95 % interval over rooms  P(over last)"]
    checkpoints = result.checkpoints or {}
    for kind, scores in checkpoints.items():
        gain = scores.over_last or UNKNOWN
        interval = f"{_signed(gain.low)} .. {_signed(gain.high)}"
        lines.append(
            f"{kind:10}  {number(scores.miou):>6}  {number(scores.pixel_accuracy):>9}"
            f"  {_signed(gain.value):>9}  {'-' if math.isnan(gain.low) else interval:>24}"
            f"  {number(gain.p_above, 3):>12}{'  (optimistic)' if kind == 'best' else ''}"
        )
    pooled = {kind: scores.miou for kind, scores in checkpoints.items()}
    lines.append(
        f"pooled mIoU of the best epochs {number(pooled['best'])} (chosen on the images they "
        f"are scored on: optimistic), of the last epochs {number(pooled['last'])}"
    )
    luck = result.optimism
    lines.append(
        "optimism of that choice: -"
        if luck is None
        else f"optimism of that choice: {_signed(luck.optimism)}; chosen on one half of a fold's"
        f" rooms and scored on the other, epochs reach {number(luck.other)}, "
        f"{_signed(luck.gain)} over the last ones"
    )
    return lines


def blend_table(result: BlendRecord) -> str:
    """What blend.json says, as text."""
    rows = [*result.members, *result.left_out]
    width = max(24, *(len(row.experiment) + 2 for row in rows))
    lines = [f"{'out-of-fold':{width}}{'mIoU':>8}{'fitted':>9}{'used':>9}"]
    for row in rows:
        used = f"{row.fitted:9.3f}{row.weight:9.3f}"
        lines.append(f"{row.experiment:{width}}{number(row.miou):>8}{used}")
    lines += [
        f"{'equal weights':{width}}{number(result.miou['equal']):>8}",
        f"{'fitted, nested':{width}}{number(result.miou['fitted']):>8}  "
        f"{difference_text(result.advantage)} over equal weights",
        f"(judged on the rooms that chose them they would be {result.optimism:.4f} better)",
        "",
    ]
    better = "better" if result.method == "fitted" else "not better"
    lines += [
        f"used: {result.method} weights, as fitted ones are {better} beyond the interval",
        f"gain over {result.best_member}, the best member: {difference_text(result.gain)}",
        "on rooms that neither networks nor weights have seen, with one network a member; the mean",
        "over folds takes part of such a gain: expect less of it on the leaderboard",
    ]
    if result.gain.value <= 0:
        lines.append(f"!! no gain: {result.best_member} alone is as good !!")
    return "\n".join(lines)


def difference_text(estimate: Estimate) -> str:
    """An estimate of a difference as text; '-' where nothing defines it or its interval."""
    if math.isnan(estimate.value):
        return "-"
    # Adding 0 turns a rounded -0 into 0.
    value, low, high = (
        round(number, 4) + 0.0 for number in (estimate.value, estimate.low, estimate.high)
    )
    interval = "-" if math.isnan(low) else f"{low:+.4f}..{high:+.4f}"
    return f"{value:+.4f} [{interval}]"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.4f}"
