"""The network's work alone, against which the training loop is held."""

import torch

from models.inference import BATCH_PIXELS, forward
from training import loop
from training.muon import Muon


class BareSteps:
    """Steps of forward, backward and optimizer, on pixels that are on the device already."""

    def __init__(self, model, image_size, batch_size, amp, lr=1e-3):
        self.model, self.amp = model, amp
        self.device = next(model.parameters()).device
        self.optimizer = Muon(model, lr, loop.WEIGHT_DECAY)
        shape = max(256, batch_size), 3, image_size, image_size
        self.pixels = torch.randint(256, shape, dtype=torch.uint8, device=self.device)

    def step(self, size):
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            output = self.model.train()(self.pixels[:size])
        loss = output.quality.mean() + output.embedding.mean()
        loss = loss if output.type_logits is None else loss + output.type_logits.mean()
        loss.backward()
        self.optimizer.step()

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class BareEpoch:
    """As many steps and forwards as an epoch of so many images has."""

    def __init__(self, model, args, images):
        self.bare = BareSteps(model, args.image_size, args.batch_size, args.amp, args.lr)
        at_once = min(256, max(1, PIXELS_AT_ONCE // args.image_size**2))
        self.steps = sizes(images, args.batch_size)
        self.statistics = sizes(
            min(images, max(loop.BN_IMAGES, args.batch_size)), args.batch_size
        )
        self.validation = sizes(args.val_samples * (args.distortions_per_image + 1), at_once)
        self.refit = sizes(min(images, args.gmm_samples), at_once)

    def run(self, refit):
        """The steps, and the forwards of validation and, where there is one, of a refit."""
        for size in self.steps:
            self.bare.step(size)
        for size in [*self.validation, *(self.refit if refit else ())]:
            forward(self.bare.model, self.bare.pixels[:size])

    @torch.no_grad()
    def measure_statistics(self):
        """The forwards from which the averaged weights get their batch-norm statistics."""
        with torch.autocast(self.bare.device.type, torch.bfloat16, enabled=self.bare.amp):
            for size in self.statistics:
                self.bare.model.train()(self.bare.pixels[:size])


def sizes(count, batch_size):
    """The sizes of the batches of so many images."""
    return [len(batch) for batch in torch.arange(count).split(batch_size)]
