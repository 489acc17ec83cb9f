"""The arms of ladder.py: what each changes of the base, as --set takes it."""

# Of all arms: smaller, shorter, with an average of the weights beside the last epoch's.
COMMON = ("data.size=[144,192]", "train.epochs=6", "train.ema=0.99")
UNMOVED = ("augment.shift=0", "augment.scale=0")  # A zoom takes their place.
# Written down before any of them was run at this size. The first is what the others are compared
# with. Where an ingredient changes the cost of a step, the epochs are as many as cost the same.
INGREDIENTS: dict[str, tuple[str, ...]] = {
    "base": (),
    # Optimisation.
    "lr 6e-4": ("train.lr=0.0006",),
    "lr 6e-3": ("train.lr=0.006",),
    "poly by step, warm-up": ("train.schedule=poly", "train.warmup=0.3"),
    "batch of 4": ("train.batch_size=4",),
    "encoder at lr x 0.3": ("train.encoder_lr=0.3",),
    "lr 4e-3, encoder x 0.3, poly, warm-up": (
        "train.lr=0.004",
        "train.encoder_lr=0.3",
        "train.schedule=poly",
        "train.warmup=0.3",
    ),
    "gradients clipped to 1": ("train.clip_norm=1",),
    "weight decay .05, not on vectors": ("train.weight_decay=0.05", "train.decay_all=false"),
    # Losses.
    "Lovasz 0.5": ("train.lovasz=0.5", "train.epochs=5"),
    "Dice 0.5": ("train.dice=0.5",),
    "label smoothing 0.1": ("train.label_smoothing=0.1",),
    "auxiliary head 0.4": ("train.aux_loss=0.4",),
    "boundary weight 2": ("train.boundary_weight=2",),
    "square-root class weights": (
        "train.class_weights=[0.981,2.512,1.528,1,0.587,0.481,0.512,1.303,1.199,1.06,2.474,0.379,0.843]",
    ),
    # Depth.
    "RGB alone": ("data.channels=[rgb]", "model.depth_head=false"),
    "no depth head": ("model.depth_head=false",),
    "depth filters from zero": ("model.input_init=zeros",),
    "slopes too": ("data.channels=[rgb,inverse_depth,slopes]",),
    "coordinates too": ("data.channels=[rgb,inverse_depth,xy]",),
    "depth branch": ("model.fusion=branch",),
    "two streams": ("model.fusion=two_stream", "train.epochs=3"),
    "holes, noise, no depth at times": (
        "augment.depth_holes=0.3",
        "augment.depth_noise=1",
        "augment.depth_drop=0.1",
    ),
    # Decoder; its frames are padded to multiples of 32.
    "FPN": ("model.decoder=fpn", "data.size=[160,192]"),
    "FPN of 128 channels": (
        "model.decoder=fpn",
        "model.decoder_channels=128",
        "data.size=[160,192]",
        "train.epochs=8",
    ),
    "DeepLabV3+ of 128 channels": ("model.decoder_channels=128", "train.epochs=7"),
    # Augmentation.
    "flip alone": (*UNMOVED, "augment.rotate=0"),
    "zoom 0.75 to 1.5": (*UNMOVED, "augment.zoom=[0.75,1.5]"),
    "zoom 0.5 to 2": (*UNMOVED, "augment.zoom=[0.5,2]"),
    "zoomed crops, 2/3 of the area": (
        *UNMOVED,
        "augment.zoom=[0.75,1.5]",
        "augment.crop=[112,160]",
        "train.epochs=9",
    ),
    "colour 0.5": ("augment.colour=0.5",),
    "copy-paste 0.5": ("augment.copy_paste=0.5",),
    # Not at equal cost: how much training the base still wants.
    "half the epochs": ("train.epochs=3",),
    "twice the epochs": ("train.epochs=12",),
}
# What configs/nyuv2_small_best.yaml has that the base has not, in parts, at this size; they were
# chosen at 240x320, by single runs. Left out one at a time they tell which of them did it.
BEST: dict[str, tuple[str, ...]] = {
    "slopes": ("data.channels=[rgb,inverse_depth,slopes]",),
    "FPN": ("model.decoder=fpn", "data.size=[160,192]"),
    "separable filters": ("model.separable=true",),
    "zoomed crops": (*UNMOVED, "augment.zoom=[0.67,1.5]", "augment.crop=[128,160]"),
    "rare crops": ("augment.rare_crop=0.5",),
    "colour": ("augment.colour=0.5",),
    "Lovasz": ("train.lovasz=0.5",),
    "optimiser": (
        "train.lr=0.004",
        "train.encoder_lr=0.6",
        "train.schedule=poly",
        "train.warmup=0.5",
        "train.weight_decay=0.05",
        "train.decay_all=false",
    ),
}
# As many as cost the same without bfloat16, by the pixels that a step and a score take.
BEST_EPOCHS = 10
OTHER_EPOCHS = {"FPN": 8, "separable filters": 5, "zoomed crops": 7}
NEEDED = {"zoomed crops": "rare crops"}  # Which are crops, too.


def best_without(without: str | None = None) -> tuple[str, ...]:
    """The best recipe, or all of it but one part and what cannot be without that."""
    gone = {without, NEEDED.get(without or "")}
    parts = [part for name, part in BEST.items() if name not in gone]
    epochs = OTHER_EPOCHS.get(without or "", BEST_EPOCHS)
    return (*(change for part in parts for change in part), f"train.epochs={epochs}")


INGREDIENTS["best"] = best_without()
INGREDIENTS |= {f"best without {name}": best_without(name) for name in BEST}
INGREDIENTS["best without depth head"] = (*INGREDIENTS["best"], "model.depth_head=false")
INGREDIENTS["best of RGB alone"] = (
    *INGREDIENTS["best without slopes"],
    "data.channels=[rgb]",
    "model.depth_head=false",
)
HEIGHTS = "data.channels=[rgb,inverse_depth,slopes,height,upward]"
INGREDIENTS["best and heights"] = (*INGREDIENTS["best"], HEIGHTS)
