"""Takes two real training steps on a processor and prints the peak of the process's memory.

python real_step.py KEY=VALUE ...: Exp060 from random weights, with these settings. A process of its
own: one that was started by another begins with that one's peak.
"""

import sys

import torch
from workers import peak_megabytes

from nyuseg.config.loading import load_config
from nyuseg.models.device import pick_device, to_device
from nyuseg.models.network import build_model
from nyuseg.training.fold import TrainingStep
from nyuseg.utils.files import PROJECT


def main(overrides: list[str]) -> None:
    torch.set_num_threads(1)
    given = ["model.encoder_weights=null", *overrides]
    config = load_config(PROJECT / "configs/exp060.yaml", given)
    device = pick_device()
    model = to_device(build_model(config.model, config.data), device).train()
    step = TrainingStep(model, config.train, config.compute, device)
    count, (height, width) = config.train.batch_size, config.training_size
    image = torch.rand(count, config.data.channel_count, height, width)
    batch = {
        "image": image.contiguous(memory_format=torch.channels_last),
        "label": torch.randint(0, 13, (count, height, width)),
        "depth": torch.rand(count, 1, height, width),
        "depth_valid": torch.ones(count, 1, height, width, dtype=torch.bool),
    }
    for _ in range(2):  # The optimizer's moments are there from the second on.
        step(batch)
    print(peak_megabytes())


if __name__ == "__main__":
    main(sys.argv[1:])
